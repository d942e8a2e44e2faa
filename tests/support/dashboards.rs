//! The committed dashboards, their panels and their queries.
// Each test program uses a part of this module.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files in a folder with this extension, by name.
pub(crate) fn files(dir: &Path, extension: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
    wanted
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, read(&path))
        })
        .collect()
}

pub(crate) fn dashboards() -> Vec<Value> {
    let files = files(&root().join("dashboards"), "json");
    let parsed = files
        .values()
        .map(|text| serde_json::from_str(text).unwrap());
    parsed.collect()
}

/// All panels and rows; a collapsed row contains its panels.
pub(crate) fn with_rows(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels")
        .iter()
        .flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
}

pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    with_rows(dashboard).filter(|panel| panel["type"] != "row")
}

pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Queries of panels and annotations, each with its position for messages.
pub(crate) fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for dashboard in dashboards() {
        let title = text(&dashboard, "title");
        for panel in panels(&dashboard) {
            for target in list(panel, "targets") {
                let place = format!(
                    "{title}, {} {}",
                    text(panel, "title"),
                    text(target, "refId")
                );
                all.push((place, text(target, "expr").to_owned()));
            }
        }
        for annotation in list(&dashboard["annotations"], "list") {
            let place = format!("{title}, annotation");
            all.push((place, text(&annotation["target"], "expr").to_owned()));
        }
    }
    assert!(all.len() > 100, "{}", all.len());
    all
}

/// The variables in a text: `$name`, `${name}`, `${name:format}`. Grafana's own start with two
/// underscores; `$1` is PromQL's.
pub(crate) fn variables(text: &str) -> Vec<String> {
    let pieces = text.split('$').skip(1);
    let names = pieces.map(|piece| {
        let piece = piece.strip_prefix('{').unwrap_or(piece);
        let name = piece.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        name.take(1).collect::<String>()
    });
    names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .collect()
}

/// A query with its variables replaced, as Grafana sends it.
pub(crate) fn filled_in(expr: &str) -> String {
    let mut expr = expr
        .replace("$__rate_interval", "1m")
        .replace("$__interval", "15s")
        .replace("$__range", "1h");
    for name in variables(&expr.clone()) {
        expr = expr
            .replace(&format!("${{{name}}}"), "x")
            .replace(&format!("${name}"), "x");
    }
    expr
}
