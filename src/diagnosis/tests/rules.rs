//! The page computes what the recording rules compute: checked against the expected values of
//! alerts/tests, which promtool checks against the rules.

use std::collections::HashMap;

use serde_yaml::Value;

use super::super::host::HostDelta;
use super::super::peers::group;
use super::*;

/// The test of this name in a file of alerts/tests.
fn test_of_rules(file: &str, name: &str) -> Value {
    let path = format!("{}/alerts/tests/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let file: Value = serde_yaml::from_str(&text).unwrap();
    let tests = file["tests"].as_sequence().unwrap();
    let found = tests.iter().find(|test| test["name"] == name);
    found.unwrap().clone()
}

/// Labels of a series such as `kvm_host_cpu_info{cpu="0",numa_node="1"}`.
fn labels_of(series: &str) -> HashMap<String, String> {
    let (_, labels) = series.split_once('{').unwrap();
    let pairs = labels.trim_end_matches('}').split(',');
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.trim().to_owned(), value.trim_matches('"').to_owned())
    });
    pairs.collect()
}

/// Labels and first value of each input series of a metric. A value such as `10x80` repeats.
fn input(test: &Value, metric: &str) -> Vec<(HashMap<String, String>, f64)> {
    let series = test["input_series"].as_sequence().unwrap().iter();
    let series = series.map(|one| {
        let [name, values] = ["series", "values"].map(|key| one[key].as_str().unwrap());
        (name, values)
    });
    let of_metric = series.filter(|(name, _)| name.starts_with(&format!("{metric}{{")));
    let parsed = of_metric.map(|(name, values)| {
        let (first, _) = values.split_once('x').unwrap();
        (labels_of(name), first.parse().unwrap())
    });
    parsed.collect()
}

/// Labels and value of each sample that an expression is expected to give.
fn expected(test: &Value, expr: &str) -> Vec<(HashMap<String, String>, f64)> {
    let checks = test["promql_expr_test"].as_sequence().unwrap();
    let check = checks.iter().find(|check| check["expr"] == expr).unwrap();
    let samples = check["exp_samples"].as_sequence().unwrap().iter();
    let samples = samples.map(|sample| {
        let labels = labels_of(sample["labels"].as_str().unwrap());
        (labels, sample["value"].as_f64().unwrap())
    });
    samples.collect()
}

#[test]
fn memory_of_a_node_is_as_far_as_the_rules_have_it() {
    let test = test_of_rules(
        "locality.yaml",
        "distances weigh, and memory-only nodes count by the nearest node with CPUs",
    );
    let number = |labels: &HashMap<String, String>, name| labels[name].parse::<u32>().unwrap();
    let cpus = input(&test, "kvm_host_cpu_info");
    let cpus = cpus.iter().map(|(labels, _)| Cpu {
        place: Place {
            numa_node: number(labels, "numa_node"),
            ..place(0)
        },
        ..cpu(number(labels, "cpu"))
    });
    let start = Instant::now();
    let mut newest = empty(start, Duration::from_secs(60)).on(cpus.collect());
    for (labels, distance) in input(&test, "kvm_host_numa_distance") {
        let pair = ["from", "to"].map(|name| (name, labels[name].as_str()));
        newest.add_fact("kvm_host_numa_distance", &pair, FactValue::Float(distance));
    }
    let base = empty(start, Duration::from_secs(52));
    let delta = Delta::new(&base, &newest);
    let machine = HostDelta::new(&newest, &delta);
    let near = expected(&test, "round(kvm_host_node:near:ratio, 0.001)");
    assert_eq!(near.len(), 24);
    for (labels, near) in near {
        let [from, to] = ["from", "to"].map(|name| number(&labels, name));
        let far = machine.far(from, to);
        assert!((1.0 - far - near).abs() < 0.001, "{from} to {to}: {far}");
    }
}

#[test]
fn names_make_the_same_peers_on_the_page_and_in_the_rules() {
    let test = test_of_rules("peers.yaml", "what names make of peers");
    let leaked = |text: &String| -> &'static str { Box::leak(text.clone().into_boxed_str()) };
    let expected = expected(&test, "kvm_vm:peers:info");
    let vms = input(&test, "kvm_vm_info");
    assert!(vms.len() > 20);
    for (facts, _) in vms {
        let name = leaked(&facts["vm"]);
        let of_target = ["vm", "job", "instance"];
        let info = facts.iter();
        let info = info.filter(|(label, _)| !of_target.contains(&label.as_str()));
        let info: Pairs = info
            .map(|(label, fact)| (leaked(label), leaked(fact)))
            .collect();
        let host = Host {
            vms: vec![(name, info, vec![Did::on(0)])],
            facts: Vec::new(),
        };
        let mut of_vm = expected.iter().filter(|(labels, _)| labels["vm"] == name);
        let by_name = of_vm.find(|(labels, _)| labels["peers_by"] == "name");
        let by_name = by_name.map(|(labels, _)| labels["peers"].clone());
        assert_eq!(group(&host.view().vms[0]), by_name, "{name}");
    }
}
