//! Recording rules and alerts: Prometheus accepts them, they fire and stay quiet as intended, and
//! everything they name exists. Expected results are in alerts/tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use vcpu_exporter::diagnosis::Cause;
use vcpu_exporter::engine::ReasonCode;
use vcpu_exporter::snapshot::metrics;

use crate::support::promtool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files in a folder with this suffix, sorted.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder));
    let entries = entries.unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|p| p.to_string_lossy().ends_with(end))
        .collect();
    paths.sort_unstable();
    paths
}

/// One rule of alerts/*.yaml.
struct Rule {
    rule: Value,
}

impl Rule {
    fn all() -> Vec<Self> {
        let mut rules = Vec::new();
        for file in files("alerts", ".yaml") {
            let text: Value = serde_yaml::from_str(&read(&file)).unwrap();
            for group in text["groups"].as_sequence().unwrap() {
                let of_group = group["rules"].as_sequence().unwrap().iter().cloned();
                rules.extend(of_group.map(|rule| Self { rule }));
            }
        }
        rules
    }

    fn alerts() -> BTreeMap<String, Self> {
        let all = Self::all().into_iter();
        let named = all.filter_map(|rule| Some((rule.text("alert")?.to_owned(), rule)));
        named.collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.rule[key].as_str()
    }

    fn expr(&self) -> &str {
        self.text("expr").unwrap()
    }

    fn annotation(&self, key: &str) -> &str {
        self.rule["annotations"][key].as_str().unwrap_or_default()
    }

    fn label(&self, key: &str) -> &str {
        self.rule["labels"][key].as_str().unwrap_or_default()
    }
}

fn alerts() -> BTreeSet<String> {
    Rule::alerts().into_keys().collect()
}

fn recorded() -> BTreeSet<String> {
    let all = Rule::all();
    let names = all.iter().filter_map(|rule| rule.text("record"));
    names.map(str::to_owned).collect()
}

#[test]
fn promtool_takes_the_rules() {
    let Some((taken, said)) = promtool::run(&["check", "rules"], &files("alerts", ".yaml")) else {
        return;
    };
    assert!(taken, "{said}");
    assert!(!said.contains("duplicate"), "{said}");
}

#[test]
fn the_rules_give_what_their_tests_say() {
    let Some((passed, said)) = promtool::run(&["test", "rules"], &files("alerts/tests", ".yaml"))
    else {
        return;
    };
    assert!(passed, "{said}");
}

#[test]
fn every_alert_says_what_it_is_and_where_to_read_on() {
    for (name, alert) in Rule::alerts() {
        let severity = alert.label("severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        assert!(alert.text("for").is_some(), "{name} fires at once");
        for key in ["summary", "description"] {
            assert!(alert.annotation(key).len() > 20, "{name} has no {key}");
        }
        // Alertmanager groups and phones show the summary: it is the same for every instance of the
        // alert.
        let summary = alert.annotation("summary");
        let is_fixed = !summary.contains("{{") && !summary.contains(|c: char| c.is_ascii_digit());
        assert!(is_fixed && summary.len() < 80, "{name}: {summary}");
        let subject = alert.annotation("subject");
        assert!(subject.contains("$labels."), "{name}: {subject}");
        let runbook = alert.annotation("runbook_url");
        assert!(
            runbook.contains(&format!("/runbooks/{name}")),
            "{name}: {runbook}"
        );
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let of_files = files("docs/runbooks", ".md");
    let of_files = of_files.iter().map(|p| p.file_stem().unwrap());
    let of_files = of_files.map(|stem| stem.to_string_lossy().into_owned());
    let runbooks: BTreeSet<String> = of_files.filter(|name| name.starts_with("Kvm")).collect();
    assert_eq!(runbooks, alerts());
}

#[test]
fn every_dashboard_that_an_alert_names_exists() {
    let dashboards = files("dashboards", ".json");
    let uid = |path: &PathBuf| {
        let dashboard: serde_json::Value = serde_json::from_str(&read(path)).unwrap();
        dashboard["uid"].as_str().unwrap().to_owned()
    };
    let uids: BTreeSet<String> = dashboards.iter().map(uid).collect();
    for (name, alert) in Rule::alerts() {
        let url = alert.annotation("dashboard_url");
        let named = url.strip_prefix("http://localhost:3000/d/").unwrap();
        let (named, variables) = named.split_once('?').unwrap();
        assert!(uids.contains(named), "{name}: {named} is none of {uids:?}");
        assert!(variables.contains("var-job="), "{name}: {url}");
    }
}

/// Words of PromQL that are our metrics; text in quotes is a label value.
fn metrics(expr: &str) -> BTreeSet<String> {
    let unquoted: String = expr.split('"').step_by(2).collect();
    words(&unquoted)
}

/// Words of a text that begin as our metrics do.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| word.starts_with("kvm_"));
    ours.map(str::to_owned).collect()
}

/// The PromQL in an annotation's template: the expressions in `query`.
fn queries(template: &str) -> impl Iterator<Item = String> + '_ {
    let plain = template.replace("\\\"", "'");
    let quoted: Vec<String> = plain
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    quoted.into_iter().filter(|text| text.contains("kvm_"))
}

fn is_exported(name: &str) -> bool {
    let series = ["_bucket", "_count"];
    let histogram = series
        .iter()
        .find_map(|end| metrics::find(name.strip_suffix(end)?));
    metrics::find(name).is_some()
        || histogram.is_some_and(|m| m.kind == vcpu_exporter::metric::Kind::Histogram)
}

#[test]
fn every_metric_of_a_rule_is_exported_or_recorded() {
    let recorded = recorded();
    for rule in Rule::all() {
        let templates = ["subject", "description", "runbook_url"].map(|key| rule.annotation(key));
        let templates: Vec<String> = templates.iter().flat_map(|text| queries(text)).collect();
        let exprs = templates.iter().map(|text| text.replace('\'', "\""));
        for expr in exprs.chain([rule.expr().to_owned()]) {
            for name in metrics(&expr) {
                assert!(
                    is_exported(&name) || recorded.contains(&name),
                    "{name} in {expr}"
                );
            }
        }
    }
}

/// A series that nothing reads costs memory and evaluation for nothing.
#[test]
fn every_recorded_series_is_read() {
    let panels = files("dashboards", ".json");
    let runbooks = files("docs/runbooks", ".md");
    let documents = panels.iter().chain(&runbooks).map(read);
    let rules = Rule::all();
    let annotations = rules.iter().map(|rule| rule.annotation("description"));
    let texts: Vec<String> = documents.chain(annotations.map(str::to_owned)).collect();
    let named: BTreeSet<String> = texts.iter().flat_map(|text| words(text)).collect();
    for name in recorded() {
        // A rule that reads its own last value is no reader of it.
        let mut readers = rules.iter().filter(|rule| {
            let is_own = rule.text("record") == Some(name.as_str());
            !is_own && metrics(rule.expr()).contains(&name)
        });
        assert!(named.contains(&name) || readers.next().is_some(), "{name}");
    }
}

/// One test of promtool: its name, and all of it as text.
struct Tested {
    test: Value,
    text: String,
}

impl Tested {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for file in files("alerts/tests", ".yaml") {
            let text: Value = serde_yaml::from_str(&read(&file)).unwrap();
            let tests = text["tests"].as_sequence().unwrap().iter().cloned();
            all.extend(tests.map(|test| Self {
                text: serde_yaml::to_string(&test).unwrap(),
                test,
            }));
        }
        all
    }

    /// Number of expected alerts of this name, at each evaluated time.
    fn expected(&self, alert: &str) -> Vec<usize> {
        let looks = self.test["alert_rule_test"].as_sequence();
        let looks = looks.into_iter().flatten();
        let looks = looks.filter(|look| look["alertname"].as_str() == Some(alert));
        let count = |look: &Value| look["exp_alerts"].as_sequence().map_or(0, Vec::len);
        looks.map(count).collect()
    }

    fn is_about(&self, alert: &str, what: &str) -> bool {
        let name = self.test["name"].as_str().unwrap();
        name.contains(what) && self.text.contains(alert)
    }
}

/// A test in which the alert fires later does not count as staying quiet.
#[test]
fn every_alert_is_tested_to_fire_to_stay_quiet_and_to_outlive_restarts_and_moves() {
    let tests = Tested::all();
    for alert in alerts() {
        let looks = |test: &Tested| test.expected(&alert);
        let fires = |test: &&Tested| looks(test).iter().any(|n| *n > 0);
        let firing = tests.iter().find(fires);
        let firing = firing.unwrap_or_else(|| panic!("{alert} fires in no test"));
        let annotations = [
            "summary",
            "subject",
            "description",
            "runbook_url",
            "dashboard_url",
        ];
        for annotation in annotations {
            assert!(firing.text.contains(annotation), "{alert}: {annotation}");
        }
        for what in ["restart", "move"] {
            let found = tests.iter().any(|test| test.is_about(&alert, what));
            assert!(found, "{alert} has no test of a {what}");
        }
        let quiet = |test: &Tested| {
            let looks = looks(test);
            !looks.is_empty() && looks.iter().all(|n| *n == 0)
        };
        assert!(tests.iter().any(quiet), "{alert} stays quiet in no test");
    }
}

/// Thresholds in mixin/thresholds.json by name.
fn thresholds() -> BTreeMap<String, f64> {
    serde_json::from_str(&read("mixin/thresholds.json")).unwrap()
}

/// Whether the number occurs in the expression as a whole word after one of these.
fn has_number(expr: &str, before: &[&str], number: f64) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let has = |before: &&str| {
        let wanted = format!("{before}{number}");
        expr.match_indices(&wanted)
            .any(|(at, _)| ends(&expr[at + wanted.len()..]))
    };
    before.iter().any(has)
}

/// The thresholds of the status page and `top`. The limit of CPI is that of the VM's peers.
#[test]
fn alert_score_and_page_judge_each_cause_by_the_same_threshold() {
    let alerts = Rule::alerts();
    let all = Rule::all();
    let scores = all
        .iter()
        .filter(|rule| rule.text("record") == Some("kvm_vm:trouble:score"));
    let mut scores: BTreeMap<&str, &Rule> =
        scores.map(|rule| (rule.label("cause"), rule)).collect();
    for cause in Cause::ALL {
        let name = serde_json::to_value(cause).unwrap();
        let name = name.as_str().unwrap();
        let score = scores.remove(name).unwrap_or_else(|| panic!("{name}"));
        let threshold = cause.threshold();
        let alert = alerts[cause.alert()].expr();
        if cause == Cause::CpiPeers {
            continue;
        }
        assert!(
            has_number(alert, &["> ", ">= ", ", "], threshold),
            "{name}: {threshold} is not in {alert}"
        );
        let score = score.expr();
        assert!(
            has_number(score, &["/ ", ", "], threshold),
            "{name}: {threshold} is not in {score}"
        );
    }
    // Only Prometheus has a week of data for comparison.
    assert_eq!(scores.into_keys().collect::<Vec<_>>(), ["cpi_week"]);
}

#[test]
fn dashboards_link_each_cause_to_the_runbook_of_its_alert() {
    let words = read("mixin/dashboards/lib/words.libsonnet");
    let until_quote = |text: &str| text.split('\'').next().unwrap().to_owned();
    let row = |text: &str| {
        let (_, runbook) = text.split_once("runbook: '").unwrap();
        (until_quote(text), until_quote(runbook))
    };
    let runbooks: BTreeMap<String, String> = words.split("cause: '").skip(1).map(row).collect();
    for cause in Cause::ALL {
        let name = serde_json::to_value(cause).unwrap();
        assert_eq!(runbooks[name.as_str().unwrap()], cause.alert());
    }
}

#[test]
fn the_document_lists_every_threshold_with_its_number() {
    let document = read("docs/ALERTS.md");
    let (_, table) = document.split_once("## Changing thresholds").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |line: &str| {
        let mut cells = line.split(" | ");
        let name = cells.next().unwrap().trim_end_matches('`').to_owned();
        let number = cells.next().unwrap().replace(',', "");
        (name, number.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    let listed: BTreeMap<String, f64> = rows.map(row).collect();
    assert_eq!(listed, thresholds());
}

/// The page and `check` call a source with such a reason absent, and the alert leaves the same out.
#[test]
fn source_that_the_machine_does_not_have_is_no_alert() {
    let alerts = Rule::alerts();
    let expr = alerts["KvmExporterSourceDegraded"].expr();
    let (_, rest) = expr.split_once("reason!~\"").unwrap();
    let (reasons, _) = rest.split_once('"').unwrap();
    let left_out: BTreeSet<&str> = reasons.split('|').collect();
    let is_off = |code| matches!(code, ReasonCode::Disabled | ReasonCode::WalksOff);
    let codes = ReasonCode::ALL.iter();
    let absent = codes.filter(|code| code.is_absent() || is_off(**code));
    assert_eq!(left_out, absent.map(|code| code.label()).collect());
    let runbook = read("docs/runbooks/KvmExporterSourceDegraded.md");
    for reason in left_out {
        assert!(runbook.contains(&format!("`{reason}`")), "{reason}");
    }
}

/// What is no trouble on a healthy host must be a reason that the program gives.
#[test]
fn reasons_that_are_left_out_exist() {
    let alerts = Rule::alerts();
    let expr = alerts["KvmExporterSourceDegraded"].expr();
    let folders = ["", "/host", "/memory", "/pmu/plan", "/exits", "/pt"];
    let folders = folders.map(|folder| format!("src/sources{folder}"));
    let folders = folders
        .iter()
        .map(String::as_str)
        .chain(["src", "src/engine"]);
    let folders: Vec<_> = folders.map(|folder| files(folder, ".rs")).collect();
    let sources: String = folders.concat().iter().map(read).collect();
    let quoted = expr
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| !text.is_empty());
    let codes: Vec<&str> = quoted.flat_map(|text| text.split('|')).collect();
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes {
        assert!(sources.contains(&format!("\"{code}\"")), "{code}");
    }
}

/// First cells in a document's tables, each with its first row.
fn rows(document: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in read(document).lines() {
        let cell = line
            .strip_prefix("| ")
            .and_then(|row| row.split(" |").next());
        let Some(cell) = cell else { continue };
        let name = cell.trim_matches(['`', '[']);
        let name = name.split(']').next().unwrap_or_default();
        rows.entry(name.to_owned())
            .or_insert_with(|| line.to_owned());
    }
    rows
}

#[test]
fn the_document_lists_every_alert_as_it_is() {
    let rows = rows("docs/ALERTS.md");
    let listed = rows.keys().filter(|name| name.starts_with("Kvm"));
    assert_eq!(listed.cloned().collect::<BTreeSet<_>>(), alerts());
    for (name, alert) in Rule::alerts() {
        let row = &rows[&name];
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(
            cells[0].ends_with(&format!("[{name}](runbooks/{name}.md)")),
            "{row}"
        );
        let rules = Rule::all();
        let same = rules
            .iter()
            .filter(|rule| rule.text("alert") == Some(name.as_str()));
        let severities: Vec<&str> = same.map(|rule| rule.label("severity")).collect();
        assert_eq!(cells[1], severities.join(" or "), "{name}");
        assert_eq!(cells[2], alert.text("for").unwrap(), "{name}");
    }
}

#[test]
fn the_document_lists_every_recorded_series() {
    let rows = rows("docs/ALERTS.md");
    let listed = rows.keys().filter(|name| name.starts_with("kvm_"));
    assert_eq!(listed.cloned().collect::<BTreeSet<_>>(), recorded());
}
