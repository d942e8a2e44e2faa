//! The rules of Grafana's dashboard-linter, for the dashboards of this repository.
//!
//! Checked, under the linter's names: template-datasource, template-job, template-instance,
//! template-label-promql, template-on-time-change-reload, panel-datasource,
//! panel-title-description, panel-units, panel-no-targets, target-rate-interval, target-job,
//! target-instance, target-counter-agg; target-promql is in dashboards.rs. Deviations are in
//! `EXCEPTIONS` with their reasons.
//!
//! Not checked: uneditable-dashboard, because operators are expected to adapt the dashboards
//! (provisioning sets `allowUiUpdates`); the target-logql rules, because no dashboard queries Loki;
//! experimental rules that require a configuration file (required matchers and variables) or an
//! element reference, which no panel uses.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::dashboards as files;
use crate::support::promtool;

use files::{dashboards, filled_in, list, panels, queries, text};

/// Deviations: the rule, the dashboard or panel, and the reason.
const EXCEPTIONS: [(&str, &str, &str); 14] = [
    (
        "template-job all",
        "",
        ".+ would include the jobs of other exporters; All is the list of jobs that have KVM hosts",
    ),
    (
        "template-instance label",
        "",
        "the page is about hosts, so the variable is labelled Host",
    ),
    (
        "template-instance multi",
        "kvm-host",
        "the topology of one host",
    ),
    (
        "template-instance multi",
        "kvm-pt",
        "recordings of one host",
    ),
    (
        "template-instance all",
        "kvm-host",
        "the topology of one host",
    ),
    ("template-instance all", "kvm-pt", "recordings of one host"),
    (
        "template-instance all",
        "kvm-vm",
        "All is the list of hosts that had the VM, not the fleet",
    ),
    (
        "template-instance all",
        "kvm-vcpu",
        "All is the list of hosts that had the VM, not the fleet",
    ),
    (
        "template-on-time-change-reload",
        "kvm-vm vm",
        "a VM that ended stays chosen while its end is looked at",
    ),
    (
        "template-on-time-change-reload",
        "kvm-vcpu vm",
        "a VM that ended stays chosen while its end is looked at",
    ),
    (
        "target-counter-agg",
        "Captures since each VM was found, by result",
        "captures are minutes apart: a total, no rate",
    ),
    (
        "target-counter-agg",
        "Trace recorded since each VM was found",
        "captures are minutes apart: a total, no rate",
    ),
    (
        "target-counter-agg",
        "Exits in recordings, by reason",
        "captures are minutes apart: a total, no rate",
    ),
    (
        "target-counter-agg",
        "Errors in the trace",
        "captures are minutes apart: a total, no rate",
    ),
];

/// Units in Grafana's list that the dashboards use, and Grafana's formats that the linter does not
/// know: `si:` scales a unit by thousands, `suffix:` appends it.
const UNITS: [&str; 11] = [
    "none",
    "short",
    "percentunit",
    "s",
    "bytes",
    "binBps",
    "celsius",
    "string",
    "si:/s",
    "suffix:cores",
    "suffix:CPUs",
];

/// Collects deviations and used exceptions.
#[derive(Default)]
struct Findings {
    wrong: Vec<String>,
    excused: BTreeSet<usize>,
}

impl Findings {
    fn check(&mut self, right: bool, rule: &str, place: &str) {
        let exception = EXCEPTIONS
            .iter()
            .position(|(of, at, _)| *of == rule && (at.is_empty() || *at == place));
        match (right, exception) {
            (true, _) => {}
            (false, Some(at)) => {
                self.excused.insert(at);
            }
            (false, None) => self.wrong.push(format!("{rule}: {place}")),
        }
    }

    /// Fails on unexplained deviations and on unused exceptions.
    fn end(self, of: &[&str]) {
        let stale = EXCEPTIONS.iter().enumerate().filter(|(at, (rule, ..))| {
            !self.excused.contains(at) && of.iter().any(|prefix| rule.starts_with(prefix))
        });
        let stale: Vec<_> = stale.map(|(_, exception)| exception).collect();
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(stale.is_empty(), "not needed: {stale:#?}");
    }
}

fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

#[test]
fn template_rules() {
    let mut findings = Findings::default();
    for dashboard in dashboards() {
        let uid = text(&dashboard, "uid");
        let named = |name: &str| {
            variables(&dashboard)
                .iter()
                .find(|one| text(one, "name") == name)
        };
        let source = named("datasource").unwrap_or(&Value::Null);
        let is_source = source["type"] == "datasource" && source["query"] == "prometheus";
        findings.check(
            is_source && source["label"] == "Data source",
            "template-datasource",
            uid,
        );
        for (name, label) in [("job", "Job"), ("instance", "Instance")] {
            let one = named(name).unwrap_or(&Value::Null);
            let from = one["datasource"]["uid"] == "${datasource}";
            findings.check(
                one["type"] == "query" && from,
                &format!("template-{name}"),
                uid,
            );
            findings.check(
                one["label"] == label,
                &format!("template-{name} label"),
                uid,
            );
            findings.check(one["multi"] == true, &format!("template-{name} multi"), uid);
            findings.check(
                one["allValue"] == ".+",
                &format!("template-{name} all"),
                uid,
            );
        }
        for one in variables(&dashboard)
            .iter()
            .filter(|one| one["type"] == "query")
        {
            let place = format!("{uid} {}", text(one, "name"));
            findings.check(
                one["refresh"] == 2,
                "template-on-time-change-reload",
                &place,
            );
        }
    }
    findings.end(&["template-"]);
}

/// template-label-promql: the arguments of label_values() and query_result() are PromQL.
#[test]
fn variables_are_promql() {
    let mut inside = Vec::new();
    for dashboard in dashboards() {
        for one in variables(&dashboard)
            .iter()
            .filter(|one| one["type"] == "query")
        {
            let query = text(&one["query"], "query");
            let labels = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.rsplit_once(", "));
            let result = query
                .strip_prefix("query_result(")
                .and_then(|rest| rest.strip_suffix(')'));
            let expr = labels.map(|(expr, _)| expr).or(result);
            inside.push(filled_in(expr.unwrap_or_else(|| panic!("{query}"))));
        }
    }
    assert!(inside.len() > 15, "{inside:?}");
    promtool::parse(&inside);
}

#[test]
fn panel_rules() {
    let mut findings = Findings::default();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let place = format!("{}: {}", text(&dashboard, "uid"), text(panel, "title"));
            let sources = std::iter::once(panel).chain(list(panel, "targets"));
            let from = sources
                .into_iter()
                .all(|one| one["datasource"]["uid"] == "${datasource}");
            findings.check(from, "panel-datasource", &place);
            let said = !text(panel, "title").is_empty() && !text(panel, "description").is_empty();
            findings.check(said, "panel-title-description", &place);
            findings.check(
                !list(panel, "targets").is_empty(),
                "panel-no-targets",
                &place,
            );
            for unit in units(panel) {
                findings.check(
                    UNITS.contains(&unit),
                    "panel-units",
                    &format!("{place}: {unit:?}"),
                );
            }
        }
    }
    findings.end(&["panel-"]);
}

/// The unit of a panel and those of its columns.
fn units(panel: &Value) -> Vec<&str> {
    let columns = list(&panel["fieldConfig"], "overrides").iter();
    let properties = columns.flat_map(|one| list(one, "properties"));
    let own = properties
        .filter(|one| one["id"] == "unit")
        .map(|one| text(one, "value"));
    own.chain([text(&panel["fieldConfig"]["defaults"], "unit")])
        .collect()
}

/// The metric names in a query, each with its matchers in braces.
fn selectors(expr: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut found = Vec::new();
    let mut quoted = false;
    let mut rest = expr;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        let matchers = after
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'));
        let metric = ["kvm_", "process_", "scrape_"]
            .iter()
            .any(|prefix| word.starts_with(prefix));
        if !quoted && (matchers.is_some() && end > 0 || metric) {
            found.push((word, matchers.map_or("", |(inside, _)| inside)));
        }
        quoted ^= first == '"';
        rest = after;
    }
    found
}

#[test]
fn selectors_are_found_with_and_without_matchers() {
    let expr = r#"sum by (vm) (kvm_a:b{job="x"}[5m]) and on (kvm) kvm_c == label_replace(up{i="y"}, "kvm_d", "", "", "")"#;
    let found = selectors(expr);
    assert_eq!(
        found,
        [("kvm_a:b", r#"job="x""#), ("kvm_c", ""), ("up", r#"i="y""#)]
    );
}

#[test]
fn target_rules() {
    let mut findings = Findings::default();
    let mut count = 0;
    for (place, expr) in queries() {
        for (metric, matchers) in selectors(&expr) {
            let place = format!("{place}: {metric}");
            findings.check(matchers.contains(r#"job=~"$job""#), "target-job", &place);
            let host = [r#"instance=~"$instance""#, r#"instance="$instance""#];
            let has_host = host.iter().any(|matcher| matchers.contains(matcher));
            findings.check(has_host, "target-instance", &place);
            count += 1;
        }
        // Rates are recorded over the window of the alerts: no dashboard needs $__rate_interval.
        let rates = ["rate(", "increase("]
            .iter()
            .any(|function| expr.contains(function));
        findings.check(!rates, "target-rate-interval", &place);
    }
    assert!(count > 200, "{count}");
    findings.end(&["target-job", "target-instance", "target-rate"]);
}

#[test]
fn no_counter_is_shown_without_a_rate() {
    let mut findings = Findings::default();
    for dashboard in dashboards() {
        for panel in panels(&dashboard) {
            let exprs = list(panel, "targets")
                .iter()
                .map(|target| text(target, "expr"));
            let counter = exprs
                .flat_map(selectors)
                .any(|(metric, _)| metric.ends_with("_total"));
            findings.check(!counter, "target-counter-agg", text(panel, "title"));
        }
    }
    findings.end(&["target-counter-agg"]);
}

/// An import names its requirements and has no inputs: file provisioning does not fill in
/// `__inputs`.
#[test]
fn imports_require_their_panels_and_no_input() {
    for dashboard in dashboards() {
        let uid = text(&dashboard, "uid");
        assert_eq!(dashboard["__inputs"], serde_json::json!([]), "{uid}");
        let required: BTreeSet<&str> = list(&dashboard, "__requires")
            .iter()
            .map(|one| text(one, "id"))
            .collect();
        let used = panels(&dashboard).map(|panel| text(panel, "type"));
        for kind in used.chain(["grafana", "prometheus"]) {
            assert!(required.contains(kind), "{uid}: {kind}");
        }
    }
}
