//! promtool of the system (Debian package `prometheus`, Prometheus 2) and of Prometheus 3
//! (tests/prometheus-3). They differ in ranges: in version 3, a range that ends on a sample
//! excludes the sample at its start.
// Each test program uses a part of this module.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts a promtool; `None`, with the reason printed, if it is missing.
fn start(program: &Path, arguments: &[&str], files: &[PathBuf]) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(arguments).args(files);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().ok();
    if child.is_none() {
        println!("skipped: {} is missing", program.display());
    }
    child
}

/// Runs both: whether each accepts the files, and their output. `None` if both are missing.
pub(crate) fn run(arguments: &[&str], files: &[PathBuf]) -> Option<(bool, String)> {
    let third = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus-3/usr/bin/promtool");
    let programs = [PathBuf::from("promtool"), third];
    // Each takes most of a minute for the tests of all rules, on one core.
    let started = programs.map(|program| (start(&program, arguments, files), program));
    let mut all: Option<(bool, String)> = None;
    for (child, program) in started {
        let Some(child) = child else { continue };
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let (accepted, said) = all.get_or_insert((true, String::new()));
        *accepted &= output.status.success();
        *said += &format!("{}:\n{}", program.display(), String::from_utf8_lossy(&text));
    }
    all
}

/// Checks that every query is valid PromQL: each becomes a rule in a file for promtool.
pub(crate) fn parse(queries: &[String]) {
    let rule = |(n, query)| serde_json::json!({ "record": format!("query:{n}"), "expr": query });
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let file = serde_json::json!({ "groups": [{ "name": "queries", "rules": rules }] });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let Some((taken, said)) = run(&["check", "rules"], &[path]) else {
        return;
    };
    let all = format!("{} rules found", queries.len());
    assert!(taken && said.contains(&all), "{said}\n{queries:#?}");
}
