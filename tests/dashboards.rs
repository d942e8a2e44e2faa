//! Dashboards query only exported metrics and recorded series, and their links lead to existing
//! dashboards. tests/mixin.rs renders them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vcpu_exporter::snapshot::metrics;

use crate::support::dashboards as files;
use crate::support::promtool;

use files::{dashboards, files, filled_in, list, panels, queries, read, root, text, variables};

const UIDS: [&str; 5] = ["kvm-fleet", "kvm-host", "kvm-pt", "kvm-vcpu", "kvm-vm"];

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
            let known = recorded.contains(name) || metrics::find(name).is_some();
            assert!(known, "{place}: {name}");
            asked.insert(name.to_owned());
        }
    }
    assert!(asked.len() > 50, "{asked:?}");
}

/// Rules compute rates once, over the window of the alerts.
#[test]
fn no_query_takes_rates_itself() {
    for (place, expr) in queries() {
        for function in ["rate(", "increase(", "delta(", "deriv("] {
            assert!(!expr.contains(function), "{place}: {expr}");
        }
    }
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
        let all = list(&dashboard, "panels");
        no_panel_overlaps(uid, all);
        for panel in all.iter().flat_map(|panel| {
            no_panel_overlaps(uid, list(panel, "panels"));
            std::iter::once(panel).chain(list(panel, "panels"))
        }) {
            let title = text(panel, "title");
            let id = format!("id {}", panel["id"].as_u64().unwrap());
            assert!(
                !title.is_empty() && seen.insert(title.to_owned()),
                "{uid}: {title}"
            );
            assert!(seen.insert(id), "{uid}: {title}");
        }
    }
}

/// Panels that are visible together: those of the page, or those of a row.
fn no_panel_overlaps(uid: &str, panels: &[Value]) {
    let mut cells = BTreeSet::new();
    for panel in panels {
        let title = text(panel, "title");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{uid}: {title}");
        let free = (x..x + w).all(|x| (y..y + h).all(|y| cells.insert((x, y))));
        assert!(free, "{uid}: {title} lies on another panel");
    }
}

/// The first screen is open. Grafana runs the queries of a collapsed row when it is opened.
#[test]
fn at_most_15_panels_are_open_and_rows_are_collapsed() {
    for dashboard in dashboards() {
        let uid = text(&dashboard, "uid");
        let (rows, open): (Vec<_>, Vec<_>) = list(&dashboard, "panels")
            .iter()
            .partition(|panel| panel["type"] == "row");
        assert!(open.len() <= 15, "{uid}: {} panels are open", open.len());
        assert!(!rows.is_empty(), "{uid}");
        for row in rows {
            let closed = row["collapsed"] == true && !list(row, "panels").is_empty();
            assert!(closed, "{uid}: {}", text(row, "title"));
        }
    }
}

/// A longer query belongs in a recording rule (mixin/rules/dashboards.libsonnet).
#[test]
fn no_query_has_more_than_1500_characters() {
    for (place, expr) in queries() {
        assert!(expr.len() <= 1500, "{place}: {}", expr.len());
    }
}

/// A VM is found without its host, and its history survives a live migration: `instance` contains
/// all its hosts.
#[test]
fn vm_is_chosen_before_its_host() {
    for dashboard in dashboards() {
        let uid = text(&dashboard, "uid");
        if !["kvm-vm", "kvm-vcpu"].contains(&uid) {
            continue;
        }
        let variables = list(&dashboard["templating"], "list");
        let at = |name: &str| variables.iter().position(|one| text(one, "name") == name);
        assert!(at("vm") < at("instance"), "{uid}");
        let vm = text(&variables[at("vm").unwrap()]["query"], "query");
        for label in [
            "uuid",
            "openstack_name",
            "openstack_project",
            "kubevirt_namespace",
        ] {
            assert!(vm.contains(&format!("\"{label}\"")), "{uid}: {label}");
        }
        let host = &variables[at("instance").unwrap()];
        assert!(host["multi"] == true && host["includeAll"] == true, "{uid}");
        assert_eq!(
            host["allValue"],
            Value::Null,
            "{uid}: all hosts of the fleet"
        );
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

/// A number in a table needs a unit or a value mapping.
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

/// All strings in a value.
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
        // For the choices, in whose values Grafana uses $ in names.
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

/// A variable depends only on earlier ones, so that each choice narrows the next.
#[test]
fn variables_are_chained() {
    for dashboard in dashboards() {
        let mut before = BTreeSet::new();
        for variable in list(&dashboard["templating"], "list") {
            let name = text(variable, "name");
            if variable["type"] == "query" {
                let asked = variables(text(&variable["query"], "query"));
                let own = asked.into_iter().filter(|name| !name.starts_with("__"));
                let asked: BTreeSet<String> = own.chain(["datasource".to_owned()]).collect();
                assert_eq!(asked, before, "{}: {name}", text(&dashboard, "uid"));
            }
            before.insert(name.to_owned());
        }
    }
}

/// A link names an existing dashboard and sets only its variables.
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

/// A runbook has the name of its alert.
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
