//! Committed rules, alerts and dashboards equal the output of mixin/, and each threshold is defined
//! once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml::Value;

use crate::support::promtool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Python interpreters that may have jsonnet: the system's, and the one installed by tests/run.
fn pythons() -> [PathBuf; 2] {
    ["python3".into(), root().join("target/jsonnet/bin/python3")]
}

/// Exit status of mixin/render if its Python has no jsonnet.
const NO_JSONNET: i32 = 3;

/// Renders the mixin with these settings below a directory. `false`, with the reason printed, if
/// there is no jsonnet.
fn render(out: &Path, config: &str) -> bool {
    for python in pythons() {
        let output = Command::new(python)
            .arg(root().join("mixin/render"))
            .arg("--out")
            .arg(out)
            .args(["--config", config])
            .output();
        let Ok(output) = output else { continue };
        if output.status.code() == Some(NO_JSONNET) {
            continue;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        return true;
    }
    println!("skipped: no python3 with jsonnet (pip install gojsonnet)");
    false
}

/// Files below a directory as relative paths.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path)
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_owned())
            }
        }
    }
    found.sort_unstable();
    found
}

/// `mixin/render` rewrites them.
#[test]
fn committed_files_are_what_the_mixin_renders_to() {
    let dir = tempfile::tempdir().unwrap();
    if !render(dir.path(), "{}") {
        return;
    }
    let rendered = files(dir.path());
    assert!(
        rendered.contains(&"alerts/alerts.yaml".into()),
        "{rendered:?}"
    );
    for path in rendered {
        let same = read(&dir.path().join(&path)) == read(&root().join(&path));
        assert!(
            same,
            "{} differs from mixin/: run mixin/render",
            path.display()
        );
    }
}

#[test]
fn every_file_of_rules_is_rendered() {
    let committed = files(&root().join("alerts"));
    let of_rules = committed
        .iter()
        .filter(|path| path.components().count() == 1);
    for path in of_rules {
        let text = read(&root().join("alerts").join(path));
        assert!(
            text.starts_with("# Generated from mixin/"),
            "{}",
            path.display()
        );
    }
}

/// Numbers that expressions in a file compare with or divide by, except 0 (absence) and 1 (a flag,
/// a whole or the unit of a score). Comments are skipped.
fn compared(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let words: Vec<&str> = code.flat_map(str::split_whitespace).collect();
    let compares = |word: &str| [">", ">=", "<", "<=", "==", "!=", "/"].contains(&word);
    let pairs = words.windows(2).filter(|pair| compares(pair[0]));
    let number = |word: &str| {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.');
        word[..end.unwrap_or(word.len())].to_owned()
    };
    let numbers = pairs.map(|pair| number(pair[1]));
    numbers
        .filter(|number| !["", "0", "1"].contains(&number.as_str()))
        .collect()
}

#[test]
fn thresholds_stand_in_one_place() {
    assert_eq!(compared("a > 0.25 and b >= 3)"), ["0.25", "3"]);
    for folder in ["mixin/rules", "mixin/alerts"] {
        for file in files(&root().join(folder)) {
            let found = compared(&read(&root().join(folder).join(&file)));
            assert!(found.is_empty(), "{folder}/{}: {found:?}", file.display());
        }
    }
    let judges = ["cause", "judge", "observe", "peers"];
    let judges = judges.map(|file| read(&root().join(format!("src/diagnosis/{file}.rs"))));
    let compares = |line: &&str| !line.trim_start().starts_with("//");
    for line in judges.concat().lines().filter(compares) {
        let declares = line.contains("const ") && line.contains("f64 =");
        let number = ["0.0", "1.0", "-1.0"]
            .iter()
            .fold(line.to_owned(), |rest, n| rest.replace(n, ""));
        let literal = number
            .chars()
            .zip(number.chars().skip(1))
            .any(|(a, b)| a.is_ascii_digit() && b == '.');
        assert!(!declares && !literal, "{line}");
    }
}

#[test]
fn settings_of_a_site_reach_every_rule() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{
        "selector": "env=\"prod\"", "clusterLabel": "site", "thresholds": {"delay": 0.375}, "absentWindow": "6h",
        "runbookBase": "https://wiki/", "dashboardBase": "https://grafana/d/"
    }"#;
    if !render(dir.path(), config) {
        return;
    }
    let [recording, alerts] =
        ["recording", "alerts"].map(|name| read(&dir.path().join(format!("alerts/{name}.yaml"))));
    for text in [&recording, &alerts] {
        assert!(text.contains("on (site, job, instance, vm)"));
        // Only the label: the dashboards' variable and the word in texts remain.
        for label in ["(cluster,", "labels.cluster", "{cluster=", ", cluster)"] {
            assert!(!text.contains(label), "{label}");
        }
        assert!(text.contains(" 0.375\n") && !text.contains("localhost"));
        let info = "kvm_exporter_build_info{env=\"prod\"}";
        assert!(text.contains(&format!("{info}[6h]")) && !text.contains(&format!("{info}[1d]")));
    }
    for (at, _) in recording.match_indices("_total") {
        assert!(
            recording[at..].starts_with("_total{env=\"prod\""),
            "{}",
            &recording[at - 40..at]
        );
    }
    assert!(alerts.contains("runbook_url: https://wiki/KvmVmExitStorm\n"));
}

/// Series of an expression that are not the exporter's, without those in `{}` of aggregations.
fn series_of_prometheus(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let starts = |at: usize| !text[..at].ends_with(is_name);
    let names = ["up", "prometheus_rule_evaluation_failures_total"];
    let found = names.iter().flat_map(|name| {
        let ends = |at: usize| !text[at + name.len()..].starts_with(is_name);
        let places = text.match_indices(name).map(|(at, _)| at);
        places.filter(move |at| starts(*at) && ends(*at))
    });
    found.map(|at| &text[at..]).collect()
}

#[test]
fn selectors_reach_series_that_prometheus_writes() {
    let cases = [
        (
            r#"{"selector": "env=\"prod\""}"#,
            ["env=\"prod\"", "vcpu-exporter[.].*\"}"],
        ),
        (
            r#"{"selector": "env=\"prod\"", "upSelector": "zone=\"a\"", "prometheusSelector": "env=\"mon\""}"#,
            ["zone=\"a\"", "env=\"mon\"}"],
        ),
    ];
    for (config, [of_up, of_prometheus]) in cases {
        let dir = tempfile::tempdir().unwrap();
        if !render(dir.path(), config) {
            return;
        }
        let mut seen = 0;
        for name in ["recording", "alerts"] {
            let text = read(&dir.path().join(format!("alerts/{name}.yaml")));
            let file: Value = serde_yaml::from_str(&text).unwrap();
            let groups = file["groups"].as_sequence().unwrap().iter();
            let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap());
            for expr in rules.map(|rule| rule["expr"].as_str().unwrap()) {
                for series in series_of_prometheus(expr) {
                    let wanted = if series.starts_with("up") {
                        of_up
                    } else {
                        of_prometheus
                    };
                    let matchers = series.split_once('}').map_or("", |(before, _)| before);
                    let all = format!("{matchers}}}");
                    assert!(all.contains(wanted), "{config}: {series}");
                    seen += 1;
                }
            }
        }
        assert!(seen >= 6, "{seen}");
        let fleet = read(&dir.path().join("dashboards/fleet.json"));
        let up = fleet.split("sum(up{").nth(1).unwrap();
        assert!(
            up.split_once('}')
                .unwrap()
                .0
                .contains(&of_up.replace('"', "\\\"")),
            "{up}"
        );
    }
}

/// Expressions of all rendered rules, on one line each.
fn expressions() -> Vec<String> {
    let mut all = Vec::new();
    for file in files(&root().join("alerts")) {
        if file.components().count() > 1 {
            continue;
        }
        let text = read(&root().join("alerts").join(file));
        let text: Value = serde_yaml::from_str(&text).unwrap();
        let groups = text["groups"].as_sequence().unwrap();
        let rules = groups
            .iter()
            .flat_map(|g| g["rules"].as_sequence().unwrap());
        let words = |rule: &Value| {
            let expr = rule["expr"].as_str().unwrap();
            expr.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        all.extend(rules.map(words));
    }
    all
}

/// If two series differ in a label that the join does not name (for example of a replica), two
/// series on the side with one fail the whole rule.
#[test]
fn joins_are_on_one_series_each() {
    let mut joins = 0;
    for expr in expressions() {
        for (at, _) in expr.match_indices(" on (") {
            let (labels, rest) = expr[at + 5..].split_once(')').unwrap();
            assert!(labels.starts_with("cluster, job"), "{expr}");
            let Some(rest) = rest.strip_prefix(" group_left (") else {
                continue;
            };
            let (_, one) = rest.split_once(')').unwrap();
            let one = one.trim_start_matches([' ', '(']);
            let aggregated = ["max", "sum", "count", "topk"]
                .iter()
                .any(|by| one.starts_with(&format!("{by} by ({labels}) (")));
            assert!(aggregated, "not one series for each ({labels}): {expr}");
            joins += 1;
        }
    }
    assert!(joins > 10, "{joins}");
}

/// Names under this key (`record`, `alert`) in a rule file.
fn names(file: &str, key: &str) -> BTreeSet<String> {
    let text: Value = serde_yaml::from_str(&read(&root().join(file))).unwrap();
    let groups = text["groups"].as_sequence().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap());
    let names = rules.filter_map(|rule| Some(rule[key].as_str()?.to_owned()));
    names.collect()
}

/// Names in the full set but not in the lean set.
fn left_out(file: &str, key: &str) -> BTreeSet<String> {
    let lean = names(&format!("alerts/lean/{file}"), key);
    let full = names(&format!("alerts/{file}"), key);
    assert!(lean.is_subset(&full), "{lean:?}");
    &full - &lean
}

/// Keeps the list entries that satisfy `wanted`.
fn keep(list: &mut Value, wanted: impl Fn(&Value) -> bool) {
    if let Some(list) = list.as_sequence_mut() {
        list.retain(wanted);
    }
}

/// Every test of the full set that uses nothing outside of the lean set.
#[test]
fn lean_set_gives_what_the_full_set_gives() {
    let records = left_out("recording.yaml", "record");
    let alerts = left_out("alerts.yaml", "alert");
    let asks = |look: &Value| {
        let expr = look["expr"].as_str().unwrap();
        let mut left_out = records.iter().chain(&alerts);
        !left_out.any(|name| expr.contains(name.as_str()))
    };
    let fires = |look: &Value| !alerts.contains(look["alertname"].as_str().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    let is_test = |file: &PathBuf| file.extension().is_some_and(|end| end == "yaml");
    let tests = files(&root().join("alerts/tests"));
    for file in tests.into_iter().filter(is_test) {
        let text = read(&root().join("alerts/tests").join(&file));
        let mut tests: Value = serde_yaml::from_str(&text).unwrap();
        for rules in tests["rule_files"].as_sequence_mut().unwrap() {
            let name = rules.as_str().unwrap().trim_start_matches("../");
            *rules = Value::from(root().join("alerts/lean").join(name).display().to_string());
        }
        for test in tests["tests"].as_sequence_mut().unwrap() {
            keep(&mut test["promql_expr_test"], asks);
            keep(&mut test["alert_rule_test"], fires);
        }
        let copy = dir.path().join(file);
        fs::write(&copy, serde_yaml::to_string(&tests).unwrap()).unwrap();
        copies.push(copy);
    }
    let Some((passed, said)) = promtool::run(&["test", "rules"], &copies) else {
        return;
    };
    assert!(passed, "{said}");
}

#[test]
fn lean_set_records_no_series_of_a_vcpu() {
    for name in names("alerts/lean/recording.yaml", "record") {
        assert!(!name.starts_with("kvm_vcpu:"), "{name}");
    }
    let alerts = left_out("alerts.yaml", "alert");
    assert_eq!(alerts.into_iter().collect::<Vec<_>>(), ["KvmPtDataLost"]);
}

/// The default limit of hosted rulers.
#[test]
fn no_group_has_more_than_twenty_rules() {
    for file in [
        "alerts.yaml",
        "recording.yaml",
        "lean/alerts.yaml",
        "lean/recording.yaml",
    ] {
        let text: Value = serde_yaml::from_str(&read(&root().join("alerts").join(file))).unwrap();
        for group in text["groups"].as_sequence().unwrap() {
            let rules = group["rules"].as_sequence().unwrap().len();
            assert!(rules <= 20, "{file}: {:?} has {rules}", group["name"]);
        }
    }
}
