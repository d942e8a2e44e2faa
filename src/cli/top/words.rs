//! What is said above the table, in plain text: the screen adds styles to it, `--once` nothing.

use std::time::Instant;

use super::column::Table;
use super::state::{Sort, State};
use crate::cli::out;
use crate::expose::view::{View, VmView};

/// How old the tick is, and where views come from.
pub(super) fn title(state: &State, now: Instant) -> String {
    let mut text = "vcpu-exporter top: ".to_owned();
    if state.paused {
        text += "PAUSED, ";
    }
    if let (Some(view), Some(age)) = (&state.view, state.age(now)) {
        text += &format!("tick {} ago, ", seconds(age));
        if view.window > 0.0 {
            text += &format!("rates over {}, ", seconds(view.window));
        }
    }
    text + &state.source
}

/// The host in a line.
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
        text += &format!("; not all there: {}", down.join(", "));
    }
    text
}

/// The warning that all of it is made up.
pub(super) fn synthetic(view: &View) -> Option<String> {
    let scenario = view.synthetic.as_ref()?;
    Some(format!(
        " SYNTHETIC HOST: scenario {scenario}. No VM, no number here is real. "
    ))
}

/// Verdicts, worst VM first, in at most `most` lines of `width`: whole where there is room for
/// all, else a line each.
pub(super) fn verdicts(view: &View, width: usize, most: usize) -> Vec<String> {
    let told = |vm: &&VmView| !vm.verdict.is_empty();
    let mut vms: Vec<&VmView> = view.vms.iter().filter(told).collect();
    vms.sort_by(|a, b| b.worst().total_cmp(&a.worst()));
    if vms.is_empty() {
        return nothing(view).into_iter().take(most).collect();
    }
    let sentence = |vm: &&VmView| format!("! {}: {}", vm.name, vm.verdict);
    // No more than could be shown is made: a host may have a thousand VMs.
    let some: Vec<String> = vms.iter().take(most + 1).map(sentence).collect();
    let wrapped: Vec<String> = some
        .iter()
        .flat_map(|text| {
            let text = out::wrap(text, width, 2);
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    if vms.len() <= most && wrapped.len() <= most {
        return wrapped;
    }
    let shown = if vms.len() <= most {
        vms.len()
    } else {
        most.saturating_sub(1)
    };
    let mut lines: Vec<String> = some
        .iter()
        .take(shown)
        .map(|text| cut(text, width))
        .collect();
    if shown < vms.len() && most > 0 {
        lines.push(format!("  and {}", count(vms.len() - shown, "more VM")));
    }
    lines
}

/// At most so many characters; an ellipsis says that there was more.
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
        let verb = if view.blind_spots.is_empty() {
            "running"
        } else {
            "seen"
        };
        lines.push(format!("No KVM virtual machine is {verb} here."));
    } else if view.window > 0.0 {
        lines.push("Nothing stands out.".to_owned());
    }
    let blind = view.blind_spots.iter();
    lines.extend(blind.map(|spot| format!("Not seen: {spot}")));
    lines
}

/// What the table shows, and in which order; `rows` says which of how many.
pub(super) fn caption(state: &State, rows: &str) -> String {
    let what = match (state.table, &state.opened) {
        (Table::Vcpus, Some(vm)) => format!("vCPUs of {vm}"),
        (Table::Vcpus, None) => "vCPUs".to_owned(),
        (Table::Vms, _) => "VMs".to_owned(),
    };
    let Sort { column, reversed } = state.sort();
    let first = match column.ascends() == reversed {
        true => "highest",
        false => "lowest",
    };
    let mut text = format!("{what} by {}, {first} first{rows}", column.title());
    if !state.filter.is_empty() && state.opened.is_none() {
        let filter = out::printable(&state.filter);
        text += &format!("; with \"{filter}\" in the VM's name");
    }
    if state.table == Table::Vms {
        text += "; causes over their thresholds, 1.0! is trouble";
    }
    text
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A time in seconds; with a decimal while that matters.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s => format!("{s:.0} s"),
    }
}
