//! Whether Prometheus kept up: what it did not evaluate cannot be judged.

use super::{Scene, EVALUATION};
use crate::exporter::Exposition;

/// The share of evaluations of any group, and of scrapes, that may be missing on a machine with other things to do.
const MISSED: f64 = 0.2;

/// A stall of two evaluations, in seconds of the scenario: with the two that an alert may take on an idle machine it uses
/// up the allowance.
const STALL: f64 = 2.0 * EVALUATION.as_secs_f64();

/// What was too slow: a group of which too many evaluations are missing, as when it takes longer than its interval, or too
/// many scrapes that are. Prints what it all costs.
pub(super) fn behind(scene: &Scene) -> Vec<String> {
    let mut behind = Vec::new();
    let groups = groups(scene);
    for group in &groups {
        println!("rules: {group}");
        if group.missed > MISSED * group.due {
            behind.push(format!("evaluations are missing: {group}"));
        }
    }
    let average = |metric: &str| -> f64 {
        let of = scene
            .prometheus()
            .query(&format!("avg_over_time({metric}[1h])"));
        of.iter().map(|e| e.value).sum()
    };
    let (up, scrape) = (average("up"), average("scrape_duration_seconds"));
    if up < 1.0 - MISSED {
        behind.push(format!(
            "only {:.0} % of scrapes were answered in time",
            up * 100.0
        ));
    }
    let share: f64 = groups.iter().map(|group| group.last / group.interval).sum();
    println!(
        "rules: {:.0} % of the time all together; a scrape takes {:.0} ms",
        share * 100.0,
        scrape * 1e3
    );
    behind
}

/// Stalls that are long enough for an alert to be late or to end early, and so explain what was wrong.
pub(super) fn stalled(scene: &Scene) -> Vec<String> {
    let oldest = "max(max_over_time(kvm_exporter_sample_age_seconds[1h]))";
    let oldest = scene.prometheus().query(oldest);
    let oldest = oldest.first().map_or(0.0, |age| age.value);
    let stalls = [
        ("scrapes", longest_gap(scene, "up")),
        ("evaluations", longest_gap(scene, "kvm_vm:cpi:rate5m")),
        ("the exporter's samples", oldest),
    ];
    let stalls = stalls.map(|(what, seconds)| (what, seconds * f64::from(scene.speed)));
    println!("longest stalls in seconds of the scenario: {stalls:.0?}");
    let long = stalls.into_iter().filter(|(_, seconds)| *seconds > STALL);
    let said = long.map(|(what, seconds)| format!("{what} stood still for {seconds:.0} s"));
    said.collect()
}

/// The longest time between two samples of any series of this name, in seconds of this machine.
pub(super) fn longest_gap(scene: &Scene, name: &str) -> f64 {
    let series = scene.prometheus().samples(&format!("{name}[1h]"));
    let times = series.iter().flat_map(|series| &series.samples);
    let mut times: Vec<f64> = times.map(|(at, _)| *at).collect();
    times.sort_by(f64::total_cmp);
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.fold(0.0, f64::max)
}

/// Rules that could not be evaluated, at any time and at the last.
pub(super) fn failed(scene: &Scene) -> Vec<String> {
    let own = scene.prometheus().own();
    let failed = own.all("prometheus_rule_evaluation_failures_total", &[]);
    let failed = failed.filter(|sample| sample.value > 0.0);
    let failed = failed.map(|sample| {
        format!(
            "{} failed evaluations of {}",
            sample.value,
            sample.label("rule_group")
        )
    });
    let rules = scene.prometheus().api("rules");
    let groups = rules["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    let unhealthy = rules
        .filter(|rule| rule["health"] == "err")
        .map(|rule| format!("{}: {}", rule["name"], rule["lastError"]));
    failed.chain(unhealthy).collect()
}

/// A group of rules. Times are in seconds.
struct Group {
    name: String,
    interval: f64,
    last: f64,
    due: f64,
    missed: f64,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name, missed, due, ..
        } = self;
        let (last, interval) = (self.last * 1e3, self.interval * 1e3);
        write!(
            f,
            "{name}: {last:.0} ms of {interval:.0}; {missed} of {due} evaluations left out"
        )
    }
}

fn groups(scene: &Scene) -> Vec<Group> {
    let own = scene.prometheus().own();
    let names = own.all("prometheus_rule_group_interval_seconds", &[]);
    let groups: Vec<_> = names
        .map(|sample| group(&own, sample.label("rule_group")))
        .collect();
    let usual = EVALUATION.as_secs_f64() / f64::from(scene.speed);
    assert!(
        groups.iter().any(|group| group.interval == usual),
        "the groups are not at speed"
    );
    groups
}

fn group(own: &Exposition, name: &str) -> Group {
    let of = |metric: &str| {
        let value = own.one(
            &format!("prometheus_rule_group_{metric}"),
            &[("rule_group", name)],
        );
        value.unwrap_or_default()
    };
    Group {
        name: name.rsplit(';').next().unwrap_or_default().to_owned(),
        interval: of("interval_seconds"),
        last: of("last_duration_seconds"),
        due: of("iterations_total"),
        missed: of("iterations_missed_total"),
    }
}
