//! The dashboards are what their generator writes, ask only for what is served or recorded, and lead to each other.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests, which clippy does not see as tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vcpu_exporter::snapshot::catalog;

#[path = "support/promtool.rs"]
mod promtool;

const UIDS: [&str; 5] = ["kvm-fleet", "kvm-host", "kvm-pt", "kvm-vcpu", "kvm-vm"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder that end so, by name.
fn files(dir: &Path, extension: &str) -> BTreeMap<String, String> {
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

fn dashboards() -> Vec<Value> {
    let files = files(&root().join("dashboards"), "json");
    let parsed = files
        .values()
        .map(|text| serde_json::from_str(text).unwrap());
    parsed.collect()
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels.iter().filter(|panel| panel["type"] != "row")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Where a query stands, for messages, and the query: those of panels and of annotations.
fn queries() -> Vec<(String, String)> {
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

/// What the generator says, or `None` with the reason printed.
fn generator(arguments: &[&str]) -> Option<String> {
    let output = Command::new("python3")
        .arg(root().join("dashboards/generate.py"))
        .args(arguments)
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no python3");
        return None;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// `dashboards/generate.py` rewrites them.
#[test]
fn the_dashboards_are_what_the_generator_writes() {
    let dir = tempfile::tempdir().unwrap();
    if generator(&["--out", dir.path().to_str().unwrap()]).is_none() {
        return;
    }
    let committed = files(&root().join("dashboards"), "json");
    let generated = files(dir.path(), "json");
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated));
    for (name, text) in generated {
        assert!(
            committed[&name] == text,
            "{name}: run dashboards/generate.py"
        );
    }
}

#[test]
fn the_list_of_queries_has_every_query() {
    let Some(list) = generator(&["--queries"]) else {
        return;
    };
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    let listed: Vec<&str> = list.iter().map(|query| text(query, "expr")).collect();
    let all = queries();
    let of_panels = all
        .iter()
        .filter(|(place, _)| !place.ends_with("annotation"));
    let of_panels: Vec<&str> = of_panels.map(|(_, expr)| expr.as_str()).collect();
    assert_eq!(listed.len(), of_panels.len());
    assert!(of_panels.iter().all(|expr| listed.contains(expr)));
}

fn recorded() -> BTreeSet<String> {
    let rules = files(&root().join("alerts"), "yaml");
    let lines = rules.values().flat_map(|text| text.lines());
    let names = lines.filter_map(|line| {
        line.trim()
            .trim_start_matches("- ")
            .strip_prefix("record: ")
    });
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn every_query_asks_for_what_is_served_or_recorded() {
    let recorded = recorded();
    let mut asked = BTreeSet::new();
    for (place, expr) in queries() {
        let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c));
        for name in words.filter(|word| word.starts_with("kvm_")) {
            let known = recorded.contains(name) || catalog::find(name).is_some();
            assert!(known, "{place}: {name}");
            asked.insert(name.to_owned());
        }
    }
    assert!(asked.len() > 50, "{asked:?}");
}

/// Rules do that once for all, over a window that is that of the alerts.
#[test]
fn no_query_takes_rates_itself() {
    for (place, expr) in queries() {
        for function in ["rate(", "increase(", "delta(", "deriv("] {
            assert!(!expr.contains(function), "{place}: {expr}");
        }
    }
}

/// The variables of a text: `$name`, `${name}`, `${name:format}`. Grafana's own begin with two underscores; `$1` is PromQL's.
fn variables(text: &str) -> Vec<String> {
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

/// A query as Grafana would send it.
fn filled_in(expr: &str) -> String {
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

#[test]
fn queries_are_promql() {
    let queries = queries();
    let queries: Vec<String> = queries.iter().map(|(_, expr)| filled_in(expr)).collect();
    promtool::parse(&queries);
}

#[test]
fn every_dashboard_has_its_address() {
    let dashboards = dashboards();
    let uids: Vec<&str> = dashboards.iter().map(|one| text(one, "uid")).collect();
    assert_eq!(uids, UIDS);
    for one in &dashboards {
        assert!(text(one, "title").starts_with("KVM / "), "{one}");
        assert!(!text(one, "description").is_empty());
    }
}

#[test]
fn every_panel_has_its_own_title_id_and_place() {
    for dashboard in dashboards() {
        let uid = text(&dashboard, "uid");
        let mut seen = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(
                !title.is_empty() && seen.insert(title.to_owned()),
                "{uid}: {title}"
            );
            assert!(
                seen.insert(format!("id {}", panel["id"].as_u64().unwrap())),
                "{uid}: {title}"
            );
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{uid}: {title}");
            let free = (x..x + w).all(|x| (y..y + h).all(|y| cells.insert((x, y))));
            assert!(free, "{uid}: {title} lies on another panel");
        }
    }
}

#[test]
fn every_panel_is_described() {
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let place = format!("{}: {}", text(&dashboard, "uid"), text(panel, "title"));
            assert!(text(panel, "description").len() > 10, "{place}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(
                panel["type"] == "text" || !text(defaults, "unit").is_empty(),
                "{place} has no unit"
            );
        }
    }
}

/// A number in a table is formatted, or put in words.
#[test]
fn every_column_with_numbers_has_a_unit() {
    for dashboard in dashboards() {
        for panel in panels(&dashboard).filter(|panel| panel["type"] == "table") {
            for column in list(&panel["fieldConfig"], "overrides") {
                let name = text(&column["matcher"], "options");
                let said = list(column, "properties")
                    .iter()
                    .any(|one| one["id"] == "unit" || one["id"] == "mappings");
                let counted = text(&panel["fieldConfig"]["defaults"], "unit") == "none";
                assert!(
                    !name.starts_with("Value") || said || counted,
                    "{}: {name}",
                    text(panel, "title")
                );
            }
        }
    }
}

fn defined(dashboard: &Value) -> BTreeSet<String> {
    let variables = list(&dashboard["templating"], "list").iter();
    variables.map(|one| text(one, "name").to_owned()).collect()
}

/// Every text in the value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_variable_that_is_used_is_defined() {
    for dashboard in dashboards() {
        let defined = defined(&dashboard);
        // Of the choices, whose own values Grafana names with $.
        let used = texts(&dashboard)
            .into_iter()
            .filter(|text| *text != "$__all");
        for name in used
            .flat_map(variables)
            .filter(|name| !name.starts_with("__"))
        {
            assert!(
                defined.contains(&name),
                "{}: ${name}",
                text(&dashboard, "uid")
            );
        }
    }
}

/// A variable depends only on those before it, so that each choice narrows the next.
#[test]
fn variables_are_chained() {
    for dashboard in dashboards() {
        let mut before = BTreeSet::new();
        for variable in list(&dashboard["templating"], "list") {
            let name = text(variable, "name");
            if variable["type"] == "query" {
                let asked = variables(text(&variable["query"], "query"));
                let asked: BTreeSet<String> =
                    asked.into_iter().chain(["datasource".to_owned()]).collect();
                assert_eq!(asked, before, "{}: {name}", text(&dashboard, "uid"));
            }
            before.insert(name.to_owned());
        }
    }
}

/// A link names a dashboard there is, and sets only variables that it has.
#[test]
fn every_link_leads_somewhere() {
    let dashboards = dashboards();
    let targets: BTreeMap<&str, BTreeSet<String>> = dashboards
        .iter()
        .map(|one| (text(one, "uid"), defined(one)))
        .collect();
    let mut linked = BTreeSet::new();
    for dashboard in &dashboards {
        for url in texts(dashboard)
            .into_iter()
            .filter_map(|text| text.strip_prefix("/d/"))
        {
            let (uid, query) = url.split_once('?').unwrap_or_else(|| panic!("{url}"));
            let known = targets.get(uid).unwrap_or_else(|| panic!("{url}"));
            for part in query
                .split('&')
                .filter(|part| *part != "${__url_time_range}")
            {
                let set = match part.strip_prefix("var-") {
                    Some(set) => set.split('=').next().unwrap().to_owned(),
                    None => variables(part).concat(),
                };
                assert!(known.contains(&set), "{url}: {set}");
            }
            linked.insert(uid.to_owned());
        }
    }
    assert_eq!(linked.len(), UIDS.len(), "{linked:?}");
}

fn alerts() -> Option<String> {
    let file = root().join("alerts/alerts.yaml");
    if !file.exists() {
        println!("skipped: there is no alerts/alerts.yaml");
        return None;
    }
    Some(read(&file))
}

/// The expression of an alert, on one line.
fn expression<'a>(alerts: &'a str, name: &str) -> &'a str {
    let rule = alerts
        .split("- alert: ")
        .find(|rule| rule.lines().next() == Some(name));
    let rule = rule.unwrap_or_else(|| panic!("there is no alert {name}"));
    rule.split("labels:").next().unwrap()
}

#[test]
fn the_limits_of_panels_are_those_of_the_alerts() {
    let (Some(alerts), Some(limits)) = (alerts(), generator(&["--limits"])) else {
        return;
    };
    let limits: Vec<Value> = serde_json::from_str(&limits).unwrap();
    assert!(limits.len() > 10, "{limits:?}");
    for limit in limits {
        let name = text(&limit, "alert");
        let expression = expression(&alerts, name);
        let value = limit["limit"].to_string();
        let compared = |word: &str| [">", ">=", "<"].contains(&word);
        let pairs: Vec<&str> = expression.split_whitespace().collect();
        let same = pairs
            .windows(2)
            .any(|pair| compared(pair[0]) && pair[1] == value);
        assert!(same, "{name}: {value} is not in {expression}");
    }
}

/// Runbooks are named after their alerts.
#[test]
fn every_runbook_that_is_named_is_an_alerts() {
    let Some(alerts) = alerts() else {
        return;
    };
    let names: BTreeSet<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let words = text(panel, "description").split(|c: char| !c.is_ascii_alphanumeric());
            for name in words.filter(|word| word.starts_with("Kvm")) {
                assert!(names.contains(name), "{}: {name}", text(panel, "title"));
            }
        }
    }
}
