//! Notifications of fired alerts as shown in docs/ALERTS.md, from the texts that promtool evaluated
//! in alerts/tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect_file;
use serde_json::json;
use serde_yaml::Value;

/// Characters per line on a phone with a 400 px wide screen.
const COLUMNS: usize = 45;

/// The alert whose webhook message is shown.
const IN_FULL: &str = "KvmVmMemoryPressure";

type Texts = BTreeMap<String, String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An alert as it fires in a test.
struct Fired {
    labels: Texts,
    annotations: Texts,
}

fn texts(value: &Value) -> Texts {
    serde_yaml::from_value(value.clone()).unwrap()
}

/// Every alert that fires in a test with its annotations, by name.
fn fired() -> BTreeMap<String, Vec<Fired>> {
    let mut fired: BTreeMap<String, Vec<Fired>> = BTreeMap::new();
    let folder = std::fs::read_dir(root().join("alerts/tests")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort_unstable();
    for file in files {
        let text: Value = serde_yaml::from_str(&read(&file)).unwrap();
        let tests = text["tests"].as_sequence().unwrap().iter();
        let looks = tests.filter_map(|test| test["alert_rule_test"].as_sequence());
        for look in looks.flatten() {
            let name = look["alertname"].as_str().unwrap();
            for alert in look["exp_alerts"].as_sequence().into_iter().flatten() {
                let mut labels = texts(&alert["exp_labels"]);
                labels.insert("alertname".to_owned(), name.to_owned());
                fired.entry(name.to_owned()).or_default().push(Fired {
                    labels,
                    annotations: texts(&alert["exp_annotations"]),
                });
            }
        }
    }
    fired
}

/// https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, without fields that
/// repeat labels and annotations.
fn message(alert: &Fired) -> serde_json::Value {
    let mut receiver = "tickets";
    if alert.labels["severity"] == "critical" {
        receiver = "pager";
    }
    json!({
        "version": "4",
        "status": "firing",
        "receiver": receiver,
        "alerts": [{
            "status": "firing",
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": "2026-11-30T03:12:30Z",
            "endsAt": "0001-01-01T00:00:00Z",
        }],
    })
}

/// Output of template kvm.text in deploy/stack/notification.tmpl.
fn text(alert: &Fired) -> String {
    let of = |name: &str| &alert.annotations[name];
    let (severity, summary) = (&alert.labels["severity"], of("summary"));
    let lines = [of("subject"), of("description"), of("runbook_url")].map(String::as_str);
    format!("{severity}: {summary}\n{}", lines.join("\n"))
}

/// Lines as a phone wraps them: at spaces, and a longer word at the end of the screen.
fn folded(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let needed =
                line.chars().count() + usize::from(!line.is_empty()) + word.chars().count();
            if needed > COLUMNS && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
            while line.chars().count() > COLUMNS {
                let rest = line.chars().skip(COLUMNS).collect();
                lines.push(line.chars().take(COLUMNS).collect());
                line = rest;
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}

fn section() -> String {
    let fired = fired();
    let shown = &fired[IN_FULL][0];
    let json = serde_json::to_string_pretty(&message(shown)).unwrap();
    let mut section = format!(
        "## As delivered\n\n\
         What Alertmanager sends to a webhook, without the parts that repeat it:\n\n```json\n{json}\n```\n\n\
         The texts of deploy/stack/notification.tmpl on a screen of 400 px ({COLUMNS} columns). Each is an alert of alerts/tests as \
         promtool\nevaluated it; `UPDATE_EXPECT=1 cargo test --test library notifications` writes this section.\n"
    );
    for alerts in fired.values() {
        section += &format!("\n```text\n{}\n```\n", folded(&text(&alerts[0])));
    }
    section
}

#[test]
fn the_document_shows_each_alert_as_delivered() {
    let path = root().join("docs/ALERTS.md");
    let document = read(&path);
    let (before, rest) = document.split_once("## As delivered\n").unwrap();
    let after = rest.split_once("\n## ").map(|(_, after)| after);
    let after = after.map_or(String::new(), |after| format!("\n## {after}"));
    expect_file![path].assert_eq(&format!("{before}{}{after}", section()));
}

#[test]
fn the_template_renders_the_texts_that_are_shown() {
    for alerts in fired().values() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.json");
        std::fs::write(&data, message(&alerts[0]).to_string()).unwrap();
        let template = root().join("deploy/stack/notification.tmpl");
        let output = Command::new("amtool")
            .args([
                "template",
                "render",
                "--template.text",
                r#"{{ template "kvm.text" . }}"#,
            ])
            .arg("--template.glob")
            .arg(template)
            .arg("--template.data")
            .arg(data)
            .output();
        let Ok(output) = output else {
            println!("skipped: amtool is missing (Debian package prometheus-alertmanager)");
            return;
        };
        let rendered = String::from_utf8(output.stdout).unwrap();
        assert_eq!(rendered.trim_end(), text(&alerts[0]));
    }
}

/// Significant digits: 0.0153 and 1.5k have 3 and 2.
fn significant(number: &str) -> usize {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').len()
}

/// Separate numbers with a fraction in a text, without addresses and versions.
fn fractions(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ".:/-_%".contains(c);
    let words = text.split(|c: char| !is_part(c));
    let words =
        words.map(|word| word.trim_end_matches(['.', ':', '%', 'k', 'M', 'G', 'i', 'B', 's']));
    let is_number = |word: &&str| word.contains('.') && word.parse::<f64>().is_ok();
    words.filter(is_number).map(str::to_owned).collect()
}

#[test]
fn texts_have_numbers_of_two_significant_digits_and_begin_with_an_action() {
    assert_eq!(
        fractions("uses 12.34% at 0000:41:00.0, not 1.5k."),
        ["12.34", "1.5"]
    );
    assert_eq!(["12.34", "0.05", "1.0"].map(significant), [4, 1, 2]);
    for (name, alerts) in fired() {
        for alert in alerts {
            let description = &alert.annotations["description"];
            let long = fractions(description);
            let long = long.iter().filter(|number| significant(number) > 2);
            assert_eq!(long.count(), 0, "{name}: {description}");
            let starts_with_name = ["The ", "VM ", "vCPU", "Host ", "A "];
            let is_action = !starts_with_name
                .iter()
                .any(|word| description.starts_with(word))
                && description.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(is_action, "{name}: {description}");
        }
    }
}

/// What a template gives where every query has a sample, or none has: blocks are taken or not, and every value is `x`.
fn rendered(template: &str, has_samples: bool) -> String {
    // Whether each open block is shown.
    let mut open: Vec<bool> = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    loop {
        let (before, after) = rest.split_once("{{").unwrap_or((rest, ""));
        let is_shown = open.iter().all(|shown| *shown);
        if is_shown {
            text += before;
        }
        let Some((action, after)) = after.split_once("}}") else {
            break text;
        };
        match action.split_whitespace().next() {
            // The comma after the first sample of a list.
            Some("if") if action.contains("$i") => open.push(false),
            Some("with" | "range" | "if") => open.push(has_samples),
            Some("else") => {
                let last = open.last_mut().unwrap();
                *last = !*last;
            }
            Some("end") => drop(open.pop()),
            _ if is_shown && !action.contains(":=") => text.push('x'),
            _ => {}
        }
        rest = after;
    }
}

/// A blank at the end or the beginning, two in a row, or one before a full stop or comma.
fn has_stray_blank(text: &str) -> bool {
    let stray = ["  ", " .", " ,", "\n"]
        .iter()
        .any(|part| text.contains(part));
    stray || text.trim() != text
}

#[test]
fn texts_have_no_stray_blanks() {
    let template = "a {{ $v }}.{{ with q }} b {{ . }}{{ else }} c{{ end }}{{ $w := 1 }}";
    assert_eq!(rendered(template, true), "a x. b x");
    assert_eq!(rendered(template, false), "a x. c");
    for file in ["alerts/alerts.yaml", "alerts/lean/alerts.yaml"] {
        let rules: Value = serde_yaml::from_str(&read(&root().join(file))).unwrap();
        let groups = rules["groups"].as_sequence().unwrap().iter();
        for rule in groups.flat_map(|group| group["rules"].as_sequence().unwrap()) {
            for (name, template) in texts(&rule["annotations"]) {
                for has_samples in [true, false] {
                    let text = rendered(&template, has_samples);
                    assert!(!has_stray_blank(&text), "{file}: {name}: {text:?}");
                }
            }
        }
    }
    for alert in fired().values().flatten() {
        for text in alert.annotations.values() {
            assert!(!has_stray_blank(text), "{text:?}");
        }
    }
}

/// The runbook has a port, and the names of the alert.
#[test]
fn links_lead_somewhere_without_a_port_in_the_instance() {
    for (name, alerts) in fired() {
        for alert in alerts {
            let url = &alert.annotations["runbook_url"];
            let Some(rest) = url.strip_prefix("http://") else {
                assert_eq!(*url, format!("docs/runbooks/{name}.md"));
                continue;
            };
            let (address, path) = rest.split_once('/').unwrap();
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            assert!(port.is_some_and(|port| port.is_ok()), "{name}: {url}");
            assert!(
                path.starts_with(&format!("runbooks/{name}")),
                "{name}: {url}"
            );
        }
    }
}
