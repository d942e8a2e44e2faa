//! The recording rules of alerts/recording.yaml over real expositions of the machines.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{json, Value};

use crate::exposition::{Exposition, Sample};
use crate::machine::{Clock, Console, Machine};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/recording.yaml");

/// Result of an expression: labels in PromQL, and a value.
type Expected<'a> = &'a [(&'a str, f64)];

/// Compares expressions with their expected results after the last scrape; promtool treats the
/// scrapes as a minute apart.
#[track_caller]
pub(crate) fn hold(scrapes: &[Exposition], expected: &[(&str, Expected<'_>)]) {
    let last = format!("{}m", scrapes.len() - 1);
    let expressions = expected.iter().map(|(expr, samples)| {
        let sample = |(labels, value): &(&str, f64)| json!({"labels": labels, "value": value});
        let samples: Vec<Value> = samples.iter().map(sample).collect();
        json!({"expr": expr, "eval_time": last, "exp_samples": samples})
    });
    let test = json!({
        "rule_files": [RULES],
        "evaluation_interval": "1m",
        "group_eval_order": groups(),
        "tests": [{
            "interval": "1m",
            "input_series": series(scrapes),
            "promql_expr_test": expressions.collect::<Vec<_>>(),
        }],
    });
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("test.yaml");
    // YAML includes all of JSON.
    std::fs::write(&file, test.to_string()).expect("the test is written");
    let Ok(promtool) = Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
    else {
        println!("skipped: promtool is missing (Debian package prometheus)");
        return;
    };
    let said = [promtool.stdout, promtool.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(promtool.status.success(), "{said}");
}

/// Groups of rules, in the order of their dependencies.
fn groups() -> Vec<Value> {
    let text = std::fs::read_to_string(RULES).expect("the rules are there");
    let rules: Value = serde_yaml::from_str(&text).expect("they are YAML");
    let groups = rules["groups"].as_array().expect("they have groups");
    groups.iter().map(|group| group["name"].clone()).collect()
}

/// Every series of the scrapes in promtool's notation: `_` if it is missing in a scrape.
fn series(scrapes: &[Exposition]) -> Vec<Value> {
    let mut series: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (n, scrape) in scrapes.iter().enumerate() {
        for sample in &scrape.samples {
            let missing = || vec!["_".to_owned(); scrapes.len()];
            let values = series.entry(identity(sample)).or_insert_with(missing);
            values[n] = sample.value.to_string();
        }
    }
    let series = series.into_iter();
    let series =
        series.map(|(series, values)| json!({"series": series, "values": values.join(" ")}));
    series.collect()
}

fn identity(sample: &Sample) -> String {
    let labels = sample.labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{}{{{}}}", sample.name, labels.join(","))
}

/// The scrapes of this name.
pub(crate) fn scrapes(console: &Console, name: &str) -> Vec<Exposition> {
    console.sections(name).map(Exposition::parse).collect()
}

/// One running guest, and one that stopped after it had run.
const SCRIPT: &str = r#"
start_exporter
start_vm busy spin 1
start_vm stopped spin 1
scrape_until '^kvm_vcpu_instructions_total.vm="busy".*mode="guest". [1-9]' >/dev/null
scrape_until '^kvm_vcpu_instructions_total.vm="stopped".*mode="guest". [1-9]' >/dev/null
kill -STOP "$(cat /tmp/stopped.pid)"
for n in 1 2 3; do
    section scrape scrape_anew
    sleep 1
done
"#;

/// On this machine each instruction takes four cycles.
#[test]
fn cycles_per_instruction_are_those_of_vcpus_that_ran() {
    let console = Machine::arm64(Clock::Icount).run(SCRIPT);
    let four: Expected<'_> = &[
        (r#"{vm="busy", vcpu="0", mode="guest"}"#, 4.0),
        (r#"{vm="busy", vcpu="0", mode="host"}"#, 4.0),
    ];
    let of_vm: Expected<'_> = &[
        (r#"{vm="busy", mode="guest"}"#, 4.0),
        (r#"{vm="busy", mode="host"}"#, 4.0),
    ];
    let stopped =
        r#"count(sum by (mode) (rate(kvm_vcpu_instructions_total{vm="stopped"}[5m])) == 0)"#;
    hold(
        &scrapes(&console, "scrape"),
        &[
            ("round(kvm_vcpu:cpi:rate5m, 0.001)", four),
            ("round(kvm_vm:cpi:rate5m, 0.001)", of_vm),
            (stopped, &[("{}", 2.0)]),
        ],
    );
}
