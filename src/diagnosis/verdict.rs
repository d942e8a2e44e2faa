//! The verdict: the problems of a VM in words. Each cause has a function that puts its observed
//! value into words, without a period.

use super::observe::{Case, Seen};
use super::suspect::Why;
use super::thresholds::thresholds;
use super::words::Words;
use super::{sum, Cause, CauseView, NodeShare, VcpuView, VmView};

/// The verdict: the worst two causes over their thresholds.
pub(super) fn sentence(causes: &[(CauseView, Words)]) -> Words {
    let over = causes.iter().filter(|(cause, _)| cause.score >= 1.0);
    let is_over = |wanted: Cause| over.clone().any(|(cause, _)| cause.cause == wanted);
    let repeats = |cause: Cause| cause.part_of().is_some_and(is_over);
    let shown = over.clone().filter(|(cause, _)| !repeats(cause.cause));
    let mut sentence = Words::default();
    for (n, (_, words)) in shown.take(2).enumerate() {
        let space = if n > 0 { " " } else { "" };
        sentence = sentence
            .push(space)
            .append(words.clone().capital())
            .push(".");
    }
    sentence
}

/// The vCPU that waits most, and how much.
fn waits<'a>(case: &Case<'a>, seen: Seen) -> Option<(&'a VcpuView, Words)> {
    let (vcpu, _) = case.vm.waits_most()?;
    let (n, share) = (vcpu.index, percent(seen.observed));
    let waits = format!("vCPU {n} waits {share} of the time it wants to run");
    Some((vcpu, waits.into()))
}

pub(super) fn delay(case: &Case<'_>, seen: Seen) -> Words {
    let Some((vcpu, words)) = waits(case, seen) else {
        return Words::default();
    };
    let core = vcpu.place.map_or_else(
        || "its core".to_owned(),
        |place| format!("core {}/{}", place.package, place.core),
    );
    let why = case.suspects.delay.as_ref();
    match why.filter(|_| seen.is_high()) {
        None => words,
        Some(why) => because(words, why, &core, case.vms),
    }
}

/// Appends the reason of a wait for a core.
fn because(words: Words, why: &Why, core: &str, vms: &[VmView]) -> Words {
    match why {
        Why::HostIsFull => words.push(", because the host is full"),
        Why::OwnThreads(used) => words.push(&format!(
            ": I/O threads of the same VM use {used:.2} of {core}"
        )),
        Why::OwnVcpus(n) => words.push(&format!(": {n} of its own vCPUs run on the same CPU")),
        Why::HostProcesses(used) => words.push(&format!(
            ": host processes, not VMs, use {used:.2} of {core}"
        )),
        Why::Vm { vm, used, others } => {
            let words = words.push(": ").vm(vms, *vm);
            let words = words.push(&format!(" uses {used:.2} of {core}"));
            match others {
                0 => words,
                1 => words.push(", 1 other VM less"),
                n => words.push(&format!(", {n} other VMs less")),
            }
        }
        Why::Shared(others) => words
            .push(&format!(": it shares {core} with "))
            .vms(vms, others),
    }
}

pub(super) fn starved(case: &Case<'_>, seen: Seen) -> Words {
    let words = waits(case, seen).map(|(_, words)| words);
    words.map_or_else(Words::default, |words| {
        words.push(", much more than the VM's other vCPUs")
    })
}

pub(super) fn quota(case: &Case<'_>, seen: Seen) -> Words {
    let cores = case.vm.quota;
    let cores = cores.map(|cores| format!(" of {} cores", number(cores)));
    let text = format!(
        "its CPU quota{} takes {} of the time it wants to run",
        cores.unwrap_or_default(),
        percent(seen.observed)
    );
    text.into()
}

pub(super) fn memory(case: &Case<'_>, seen: Seen) -> Words {
    let vm = case.vm;
    let runs = nodes(vm, |node| node.time, thresholds().node_time_share);
    let memory = nodes(vm, |node| node.memory, thresholds().node_time_share);
    let distance = vm.memory_distance.filter(|distance| *distance > 0.0);
    let distance =
        distance.map(|times| format!("; mean distance {:.0}, local is 10", times * 10.0));
    let text = format!(
        "{} of its memory accesses are remote: it runs on {runs}, its memory is on {memory}{}{}",
        percent(seen.observed),
        distance.unwrap_or_default(),
        without_cpus(vm).unwrap_or_default()
    );
    text.into()
}

/// The share of memory on nodes without CPUs: no placement of vCPUs can change it.
fn without_cpus(vm: &VmView) -> Option<String> {
    let has = |node: &&NodeShare| !node.has_cpus && node.memory >= Some(thresholds().worth_naming);
    let nodes: Vec<&NodeShare> = vm.nodes.iter().filter(has).collect();
    let share = sum(nodes.iter().map(|node| node.memory))?;
    let ids: Vec<String> = nodes.iter().map(|node| node.node.to_string()).collect();
    let (nodes, have) = match ids.len() {
        1 => ("node", "has"),
        _ => ("nodes", "have"),
    };
    Some(format!(
        "; {} is on {nodes} {}, which {have} no CPUs",
        percent(share),
        ids.join(", ")
    ))
}

/// Nodes with at least this share, highest first: "node 0 (90 %) and node 1 (10 %)".
fn nodes(vm: &VmView, share: impl Fn(&NodeShare) -> Option<f64>, least: f64) -> String {
    let shares = vm.nodes.iter();
    let shares = shares.filter_map(|node| Some((node.node, share(node)?)));
    let mut shares: Vec<(u32, f64)> = shares.filter(|(_, share)| *share >= least).collect();
    shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let text = |(node, share): &(u32, f64)| match share {
        share if *share >= 0.995 => format!("node {node}"),
        share => format!("node {node} ({})", percent(*share)),
    };
    let texts: Vec<String> = shares.iter().map(text).collect();
    match texts.as_slice() {
        [] => "no node that is known".to_owned(),
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        only => only.concat(),
    }
}

pub(super) fn devices(case: &Case<'_>, _: Seen) -> Words {
    let devices = case.vm.devices.iter();
    let remote: Vec<_> = devices.filter(|d| d.remote == Some(true)).collect();
    let text = match remote.as_slice() {
        [] => "none of its devices is far from its vCPUs".to_owned(),
        [device] => format!(
            "its {} is on node {}; {} of its vCPU time is far from that node",
            what(device),
            device.node.map_or("?".to_owned(), |node| node.to_string()),
            percent(device.far.unwrap_or_default())
        ),
        _ => format!(
            "{} of its devices are on nodes far from its vCPUs",
            remote.len()
        ),
    };
    text.into()
}

fn what(device: &super::DeviceView) -> String {
    match &device.class {
        Some(class) => format!("{class} device {}", device.name),
        None => format!("device {}", device.name),
    }
}

pub(super) fn cpi(_: &Case<'_>, seen: Seen) -> Words {
    let Seen { observed, limit } = seen;
    let text = if seen.is_high() {
        format!("CPI is {observed:.2}; the limit for its peers is {limit:.2}")
    } else {
        format!("CPI is {observed:.2}, as for its peers (limit {limit:.2})")
    };
    text.into()
}

pub(super) fn cache(case: &Case<'_>, seen: Seen) -> Words {
    let misses = Words::from(format!(
        "{} cache misses per 1000 instructions (limit {})",
        number(seen.observed),
        number(seen.limit)
    ));
    match case.suspects.cache.filter(|_| seen.is_high()) {
        Some(vm) => misses
            .push("; ")
            .vm(case.vms, vm)
            .push(" misses most in the same cache"),
        None => misses,
    }
}

pub(super) fn smt(case: &Case<'_>, seen: Seen) -> Words {
    let shared = Words::from(format!(
        "{} of its time the other thread of its core is busy",
        percent(seen.observed)
    ));
    let words = match case.suspects.smt {
        Some(vm) => shared.push(", most of it with ").vm(case.vms, vm),
        None => shared,
    };
    words.push(", while cores of its nodes are idle")
}

pub(super) fn throttling(_: &Case<'_>, seen: Seen) -> Words {
    let share = percent(seen.observed);
    format!("its CPU package is too hot {share} of the time and slows down").into()
}

pub(super) fn exits(_: &Case<'_>, seen: Seen) -> Words {
    let exits = thousands(seen.observed);
    format!("it exits to the host {exits} times per second of CPU time").into()
}

/// A percentage without decimals, or with one below 10.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 9.95 => format!("{p:.0}\u{a0}%"),
        p => format!("{p:.1}\u{a0}%"),
    }
}

/// A number with two significant digits.
fn number(n: f64) -> String {
    match n {
        n if n >= 9.95 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

/// A large number, rounded.
fn thousands(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n if n >= 9_950.0 => format!("{:.0} thousand", n / 1e3),
        n if n >= 1e3 => format!("{:.1} thousand", n / 1e3),
        n => format!("{n:.0}"),
    }
}
