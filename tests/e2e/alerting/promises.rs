//! What a scenario promises of alerts, against what fired and what was delivered.

use std::collections::BTreeMap;

use vcpu_exporter::demo::synthetic::scenario::{Expect, Trouble};

use super::episodes::{fired, minutes, Episode};
use super::{Scene, AFTERMATH, ALLOWANCE};
use crate::alertmanager::Delivery;
use crate::run::eventually;

/// Nothing fired, Alertmanager knows of nothing, and nobody was told anything. Says what was not so.
pub(super) fn nothing_fired(scene: &Scene) -> Vec<String> {
    let query = "count by (alertname, vm) (count_over_time(ALERTS[1h]))";
    let pending = scene.prometheus().query(query);
    let pending = pending
        .iter()
        .map(|alert| format!("{}{{{}}}", alert.label("alertname"), alert.label("vm")));
    println!(
        "calm: pending at some time: [{}]",
        pending.collect::<Vec<_>>().join(", ")
    );
    let fired = fired(scene)
        .into_iter()
        .map(|episode| format!("calm: fired {episode}"));
    let known = scene.stack.active().into_iter();
    let known = known.map(|name| format!("calm: Alertmanager has {name}"));
    let told = scene.webhook.taken().into_iter();
    let told = told.map(|delivery| format!("calm: the webhook was told of {:?}", delivery.labels));
    fired.chain(known).chain(told).collect()
}

fn list(episodes: &[Episode]) -> String {
    let lines: Vec<_> = episodes.iter().map(Episode::to_string).collect();
    lines.join("\n")
}

/// Each trouble's alerts fired in time and ended, and no others did. Says what was not so.
pub(super) fn kept(scene: &Scene) -> Vec<String> {
    let fired = fired(scene);
    println!("fired:\n{}", list(&fired));
    let troubles = &scene.scenario.troubles;
    let mut failures = Vec::new();
    for trouble in troubles {
        for expect in &trouble.expect {
            failures.extend(in_time(trouble, expect, &fired));
        }
    }
    for episode in &fired {
        if !troubles.iter().any(|trouble| explains(trouble, episode)) {
            failures.push(format!("nobody expected {episode}"));
        }
    }
    failures
}

/// What is wrong with one promise: its alert did not fire, or too late.
fn in_time(trouble: &Trouble, expect: &Expect, fired: &[Episode]) -> Option<String> {
    let start = trouble.start.as_secs_f64();
    let mut its = fired
        .iter()
        .filter(|episode| belongs(trouble, expect, episode));
    let named = format!("{}: {}{:?}", trouble.name, expect.alert, expect.labels);
    let Some(first) = its.next() else {
        return Some(format!("{named} did not fire"));
    };
    let (took, within) = (first.from - start, expect.within);
    println!(
        "{named} after {} of {}",
        minutes(took),
        minutes(within.as_secs_f64())
    );
    let most = (within + ALLOWANCE).as_secs_f64();
    (took > most).then(|| format!("{named} fired after {}", minutes(took)))
}

/// Whether an episode is one that a trouble promised, and began and ended with it.
fn explains(trouble: &Trouble, episode: &Episode) -> bool {
    let end = (trouble.end() + AFTERMATH).as_secs_f64();
    let expects = |expect: &Expect| belongs(trouble, expect, episode);
    episode.to <= end && trouble.expect.iter().any(expects)
}

/// Whether an episode is the alert of a promise, and began with the trouble.
fn belongs(trouble: &Trouble, expect: &Expect, episode: &Episode) -> bool {
    let start = trouble.start.as_secs_f64();
    let end = (trouble.end() + ALLOWANCE).as_secs_f64();
    episode.label("alertname") == expect.alert
        && episode.has(&expect.labels)
        && (start..=end).contains(&episode.from)
}

/// The webhook received each alert when it fired and when it was over, and that in whole sentences.
pub(super) fn delivered(scene: &Scene) -> Vec<String> {
    delivered_as(&[true, false], scene)
}

/// The webhook received each alert when it fired, in whole sentences.
pub(super) fn delivered_as_firing(scene: &Scene) -> Vec<String> {
    delivered_as(&[true], scene)
}

/// The webhook received each alert in these states: firing (`true`) or over (`false`).
fn delivered_as(states: &[bool], scene: &Scene) -> Vec<String> {
    let fired = fired(scene);
    let free = |episode: &&Episode| !fired.iter().any(|other| episode.is_inhibited_by(other));
    // Alerts of severity info are routed nowhere.
    let is_routed = |episode: &&Episode| episode.label("severity") != "info";
    let due: Vec<_> = fired.iter().filter(free).filter(is_routed).collect();
    let came = |firing: bool, labels: &BTreeMap<String, String>, taken: &[Delivery]| {
        taken
            .iter()
            .any(|d| d.firing == firing && d.labels == *labels)
    };
    let missing = |firing: bool| {
        let taken = scene.webhook.taken();
        let missing = due
            .iter()
            .filter(|episode| !came(firing, &episode.labels, &taken));
        missing.map(ToString::to_string).collect::<Vec<_>>()
    };
    // What is over is told with the group's next message, and so is an alert that joins a group.
    let _ = eventually(|| {
        states
            .iter()
            .all(|state| missing(*state).is_empty())
            .then_some(())
    });
    let word = |firing| if firing { "firing" } else { "resolved" };
    let lost = states.iter().flat_map(|&firing| {
        let lost = missing(firing).into_iter();
        lost.map(move |episode| format!("the webhook was not told that {} {episode}", word(firing)))
    });
    let mut failures: Vec<_> = lost.collect();
    let taken = scene.webhook.taken();
    println!(
        "webhook: {} of {} episodes due, {} alerts in all messages",
        due.len(),
        fired.len(),
        taken.len()
    );
    failures.extend(taken.iter().filter_map(badly_told));
    let is_info = |taken: &&Delivery| taken.labels.get("severity").is_some_and(|s| s == "info");
    let info = taken.iter().filter(is_info);
    failures.extend(info.map(|delivery| format!("an info was sent: {:?}", delivery.labels)));
    failures
}

/// What is wrong with the annotations of a delivered alert.
fn badly_told(delivery: &Delivery) -> Option<String> {
    let told = |name: &str| delivery.annotations.get(name).map_or("", String::as_str);
    let name = delivery.labels.get("alertname").map_or("", String::as_str);
    let wrong = [
        "summary",
        "subject",
        "description",
        "runbook_url",
        "dashboard_url",
    ]
    .into_iter()
    .find(|name| {
        let text = told(name);
        text.is_empty()
            || ["<no value>", "<error", "NaN", "%!"]
                .iter()
                .any(|bad| text.contains(bad))
    });
    wrong.map(|annotation| format!("{name}: {annotation}: {:?}", told(annotation)))
}
