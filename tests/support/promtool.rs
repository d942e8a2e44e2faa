//! promtool (Debian package `prometheus`), which knows what Prometheus takes.
// Not every test program uses all of it.
#![allow(dead_code)]

use std::path::PathBuf;
use std::process::Command;

/// Runs promtool: whether it is content, and what it says. `None`, with a word why, where it is not installed.
pub(crate) fn run(arguments: &[&str], files: &[PathBuf]) -> Option<(bool, String)> {
    let output = Command::new("promtool")
        .args(arguments)
        .args(files)
        .output();
    let Ok(output) = output else {
        println!("skipped: promtool is missing (Debian package prometheus)");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some((output.status.success(), said))
}

/// Every query is PromQL: each is the expression of a rule of its own, in a file for promtool to read.
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
