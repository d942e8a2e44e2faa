//! The recording rules and alerts: that Prometheus takes them, that they fire and stay quiet as
//! they should, and that what they name is there. What each gives is in alerts/tests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests, which clippy does not see as tests

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_yaml::Value;
use vcpu_exporter::expose::view::Cause;
use vcpu_exporter::snapshot::catalog;

#[path = "support/promtool.rs"]
mod promtool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of a folder that end so, in order.
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
        assert!(variables.starts_with("var-job="), "{name}: {url}");
    }
}

/// Words of PromQL that are metrics of ours; what stands in quotes is a label's value.
fn metrics(expr: &str) -> BTreeSet<String> {
    let unquoted: String = expr.split('"').step_by(2).collect();
    let words = unquoted.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = words.filter(|word| word.starts_with("kvm_"));
    ours.map(str::to_owned).collect()
}

/// The PromQL in the template of an annotation: what is printed for `query`, and what is queried.
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
        .find_map(|end| catalog::find(name.strip_suffix(end)?));
    catalog::find(name).is_some() || histogram.is_some_and(|m| m.kind == catalog::Kind::Histogram)
}

#[test]
fn every_metric_of_a_rule_is_exported_or_recorded() {
    let recorded = recorded();
    for rule in Rule::all() {
        let templates = ["description", "runbook_url"].map(|key| rule.annotation(key));
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

    /// How many alerts it expects of this name, at each time it looks.
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

/// A test in which it fires later is none of staying quiet.
#[test]
fn every_alert_is_tested_to_fire_to_stay_quiet_and_to_outlive_restarts_and_moves() {
    let tests = Tested::all();
    for alert in alerts() {
        let looks = |test: &Tested| test.expected(&alert);
        let fires = |test: &&Tested| looks(test).iter().any(|n| *n > 0);
        let firing = tests.iter().find(fires);
        let firing = firing.unwrap_or_else(|| panic!("{alert} fires in no test"));
        for annotation in ["summary", "description", "runbook_url", "dashboard_url"] {
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

/// A row of the table of thresholds at the top of alerts.yaml.
struct Threshold {
    alert: String,
    comparison: String,
    number: String,
    cause: Option<String>,
}

fn thresholds() -> Vec<Threshold> {
    let text = read("alerts/alerts.yaml");
    let rows = text.lines().filter(|line| line.starts_with("#   Kvm"));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let at = words.iter().position(|w| [">", ">=", "<"].contains(w));
        let at = at.unwrap_or_else(|| panic!("{line}"));
        Threshold {
            alert: words[0].to_owned(),
            comparison: words[at].to_owned(),
            number: words[at + 1].to_owned(),
            cause: words.get(at + 2).map(|&word| word.to_owned()),
        }
    };
    rows.map(row).collect()
}

/// What the status page and `top` judge by. The limit of CPI is that of the VM's peers.
#[test]
fn the_page_judges_by_the_same_thresholds() {
    let table = thresholds();
    for cause in Cause::ALL {
        let name = serde_json::to_value(cause).unwrap();
        let row = table.iter().find(|row| {
            let same = row.cause.as_deref() == name.as_str() && row.alert == cause.alert();
            let number: f64 = row.number.parse().unwrap();
            same && (cause == Cause::CpiPeers || number == cause.threshold())
        });
        assert!(row.is_some(), "{name}: {}", cause.threshold());
    }
}

/// Whether the number stands in the expression on its own, after this.
fn has_number(expr: &str, before: &str, number: &str) -> bool {
    let wanted = format!("{before}{number}");
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    expr.match_indices(&wanted)
        .any(|(at, _)| ends(&expr[at + wanted.len()..]))
}

#[test]
fn thresholds_are_those_of_the_table_in_alerts_and_in_scores() {
    let alerts = Rule::alerts();
    let all = Rule::all();
    let scores = all
        .iter()
        .filter(|rule| rule.text("record") == Some("kvm_vm:trouble:score"));
    let scores: BTreeMap<&str, &Rule> = scores.map(|rule| (rule.label("cause"), rule)).collect();
    let mut causes = BTreeSet::new();
    let mut judged = BTreeSet::new();
    for row in thresholds() {
        let expr = alerts[&row.alert].expr();
        let before = format!("{} ", row.comparison);
        assert!(
            has_number(expr, &before, &row.number),
            "{}: {expr}",
            row.alert
        );
        judged.insert(row.alert);
        let Some(cause) = row.cause else { continue };
        let score = scores[cause.as_str()].expr();
        // Of CPI the threshold is the VM's own limit; the alert's is how long it was above.
        let limit = score.contains(&format!("/ (kvm_vm:{cause}:limit > 0)"));
        let number = ["/ ", "(", "+ "]
            .iter()
            .any(|b| has_number(score, b, &row.number));
        assert!(limit || number, "{cause}: {} is not in {score}", row.number);
        causes.insert(cause);
    }
    assert_eq!(
        causes.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        scores.into_keys().collect()
    );
    let without = [
        "KvmExporterDown",
        "KvmExporterSourceDegraded",
        "KvmPmuHostOnly",
    ];
    let without = without.map(str::to_owned).into();
    assert_eq!(&judged | &without, alerts.into_keys().collect());
}

/// What is no trouble on a healthy host must be a reason that the program gives.
#[test]
fn reasons_that_are_left_out_exist() {
    let alerts = Rule::alerts();
    let expr = alerts["KvmExporterSourceDegraded"].expr();
    let folders = ["", "/host", "/memory", "/pmu/plan", "/exits"];
    let folders = folders.map(|folder| files(&format!("src/sample{folder}"), ".rs"));
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

/// First cells of a document's tables, each with the first row that has it.
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
        assert_eq!(cells[1], alert.label("severity"), "{name}");
        assert_eq!(cells[2], alert.text("for").unwrap(), "{name}");
    }
}

#[test]
fn the_document_lists_every_recorded_series() {
    let rows = rows("docs/ALERTS.md");
    let listed = rows.keys().filter(|name| name.starts_with("kvm_"));
    assert_eq!(listed.cloned().collect::<BTreeSet<_>>(), recorded());
}
