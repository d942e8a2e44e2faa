//! Texts above the table, in plain text; the screen adds styles, `--once` does not.

use std::time::Instant;

use super::column::Table;
use super::order::Sort;
use super::state::State;
use crate::cli::out::{self, count};
use crate::diagnosis::{View, VmView};

/// The host, the age of the tick, and the source of views.
pub(super) fn title(state: &State, now: Instant) -> String {
    let view = state.view.as_ref();
    let host = view.and_then(|view| view.host.name.as_deref());
    let mut text = format!("{}: ", host.unwrap_or("vcpu-exporter top"));
    if state.paused {
        text += "PAUSED, ";
    }
    if let (Some(view), Some(age)) = (&state.view, state.age(now)) {
        text += &format!("sampled {} ago, ", seconds(age));
        if view.window > 0.0 {
            text += &format!("rates over {}, ", seconds(view.window));
        }
    }
    text + &state.source
}

/// Load of the host in one line.
pub(super) fn host(view: &View) -> String {
    let host = &view.host;
    let mut text = format!(
        "{}, {} on {}",
        count(host.vms, "VM"),
        count(host.vcpus, "vCPU"),
        count(host.cpus, "CPU"),
    );
    if let Some(demand) = host.demand {
        text += &format!(": vCPUs want {demand:.1} CPUs");
        if host.cpus > 0 {
            text += &format!(" ({:.0}%)", demand / host.cpus as f64 * 100.0);
        }
        if let Some(time) = host.time {
            text += &format!(", get {time:.1}");
        }
    }
    let down = view.sources.iter();
    let down = down.filter(|source| ["down", "degraded"].contains(&source.state.as_str()));
    let down: Vec<&str> = down.map(|source| source.name.as_str()).collect();
    if !down.is_empty() {
        text += &format!("; degraded: {}", down.join(", "));
    }
    text
}

/// The warning that the host is synthetic.
pub(super) fn synthetic(view: &View) -> Option<String> {
    let scenario = view.synthetic.as_ref()?;
    Some(format!(
        " SYNTHETIC HOST, scenario {scenario}: no VM here is real. "
    ))
}

/// Verdicts, worst VM first, in at most `most` lines of `width` characters: in full if all fit,
/// else one line each.
pub(super) fn verdicts(view: &View, width: usize, most: usize) -> Vec<String> {
    let is_full = view.host.is_full();
    let vms = view.vms.iter().filter(|vm| !vm.verdict.is_empty());
    let mut vms: Vec<&VmView> = vms.collect();
    vms.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
    // On a full host, VMs that only wait are one problem, not many.
    let (waits, vms): (Vec<&VmView>, Vec<&VmView>) =
        vms.into_iter().partition(|vm| is_full && vm.only_waits());
    if vms.is_empty() && !is_full {
        return nothing(view).into_iter().take(most).collect();
    }
    let sentence = |vm: &&VmView| format!("! {}: {}", vm.name, vm.verdict);
    // Build only what can be shown: a host may have a thousand VMs.
    let of_vms = vms.iter().map(sentence);
    let all = is_full
        .then(|| host_is_full(view, &waits))
        .into_iter()
        .chain(of_vms);
    let some: Vec<String> = all.take(most + 1).collect();
    let count_all = vms.len() + usize::from(is_full);
    let wrapped: Vec<String> = some
        .iter()
        .flat_map(|text| {
            let text = out::wrap(text, width, 2);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    if count_all <= most && wrapped.len() <= most {
        return wrapped;
    }
    let shown = if count_all <= most {
        count_all
    } else {
        most.saturating_sub(1)
    };
    let mut lines: Vec<String> = some
        .iter()
        .take(shown)
        .map(|text| cut(text, width))
        .collect();
    if shown < count_all && most > 0 {
        lines.push(format!("  and {}", count(count_all - shown, "more VM")));
    }
    lines
}

/// The verdict on a full host, and its VMs that only wait, worst first.
fn host_is_full(view: &View, waits: &[&VmView]) -> String {
    let mut text = format!("! {}", view.host.verdict);
    let names: Vec<&str> = waits.iter().take(3).map(|vm| vm.name.as_str()).collect();
    if !names.is_empty() {
        text += &format!(
            " {} with no other problem: {}",
            count(waits.len(), "VM"),
            names.join(", ")
        );
        if names.len() < waits.len() {
            text += &format!(" and {} more", waits.len() - names.len());
        }
        text += ".";
    }
    text
}

/// At most `width` characters; an ellipsis marks a cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

fn nothing(view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    if view.vms.is_empty() {
        let verb = if view.visibility_gaps.is_empty() {
            "running"
        } else {
            "seen"
        };
        lines.push(format!("No KVM VM is {verb} on this host."));
    } else if view.window > 0.0 {
        lines.push("No VM exceeds a threshold.".to_owned());
    }
    let gaps = view.visibility_gaps.iter();
    lines.extend(gaps.map(|spot| format!("Not seen: {spot}")));
    lines
}

/// Content and order of the table; `rows` is the visible range.
pub(super) fn caption(state: &State, rows: &str) -> String {
    let what = match (state.table, &state.opened) {
        (Table::Vcpus, Some(vm)) => format!("vCPUs of {vm}"),
        (Table::Vcpus, None) => "vCPUs".to_owned(),
        (Table::Vms, _) => "VMs".to_owned(),
    };
    let Sort { column, reversed } = state.sort();
    let first = if column.ascends() == reversed {
        "highest"
    } else {
        "lowest"
    };
    let mut text = format!("{what} by {}, {first} first{rows}", column.title());
    if !state.filter.is_empty() && state.opened.is_none() {
        let filter = out::printable(&state.filter);
        text += &format!("; VM name contains \"{filter}\"");
    }
    if state.table == Table::Vms {
        text += "; causes as multiples of their thresholds, a problem from 1.0!";
    }
    text
}

/// Seconds, with a decimal below 10 s.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}
