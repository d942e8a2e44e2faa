//! The verdict: the problems of a VM in words.

use super::cause::{Cause, CauseView, Seen};
use super::suspect::{Suspects, Why};
use super::thresholds::thresholds;
use super::words::Words;
use super::{sum, NodeShare, VmView};

/// The verdict: the worst two causes over their thresholds.
pub(super) fn sentence(causes: &[(CauseView, Words)]) -> Words {
    let over = causes.iter().filter(|(cause, _)| cause.score >= 1.0);
    // The vCPU that waits most is named only once.
    let waits = over.clone().any(|(cause, _)| cause.cause == Cause::Delay);
    let shown = over.filter(|(cause, _)| !(waits && cause.cause == Cause::Starved));
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

/// A cause in words, without a period.
pub(super) fn text(
    Seen(cause, observed, threshold): Seen,
    vm: &VmView,
    vms: &[VmView],
    suspects: &Suspects,
) -> Words {
    let is_high = observed >= threshold;
    match cause {
        Cause::Delay => delay(observed, is_high, vm, vms, suspects),
        Cause::Starved => starved(observed, vm).into(),
        Cause::Quota => quota(observed, vm).into(),
        Cause::MemoryRemote => memory(observed, vm).into(),
        Cause::DeviceRemote => devices(vm).into(),
        Cause::CpiPeers => cpi(observed, threshold).into(),
        Cause::Cache => {
            let suspect = suspects.cache.filter(|_| is_high);
            cache(observed, threshold, suspect, vms)
        }
        Cause::Smt => smt(observed, suspects.smt, vms),
        Cause::Throttling => format!(
            "its CPU package is too hot {} of the time and slows down",
            percent(observed)
        )
        .into(),
        Cause::Exits => format!(
            "it exits to the host {} times per second of CPU time",
            thousands(observed)
        )
        .into(),
    }
}

fn delay(ratio: f64, is_high: bool, vm: &VmView, vms: &[VmView], suspects: &Suspects) -> Words {
    let Some((vcpu, _)) = vm.waits_most() else {
        return Words::default();
    };
    let waits = format!(
        "vCPU {} waits {} of the time it wants to run",
        vcpu.index,
        percent(ratio)
    );
    let words = Words::from(waits);
    let core = vcpu.place.map_or_else(
        || "its core".to_owned(),
        |place| format!("core {}/{}", place.package, place.core),
    );
    let Some(why) = suspects.delay.as_ref().filter(|_| is_high) else {
        return words;
    };
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

fn starved(ratio: f64, vm: &VmView) -> String {
    match vm.waits_most() {
        Some((vcpu, _)) => format!(
            "vCPU {} waits {} of the time it wants to run, much more than the VM's other vCPUs",
            vcpu.index,
            percent(ratio)
        ),
        None => String::new(),
    }
}

fn quota(observed: f64, vm: &VmView) -> String {
    let cores = vm.quota.map(|cores| format!(" of {} cores", number(cores)));
    format!(
        "its CPU quota{} takes {} of the time it wants to run",
        cores.unwrap_or_default(),
        percent(observed)
    )
}

fn memory(observed: f64, vm: &VmView) -> String {
    let runs = nodes(vm, |node| node.time, thresholds().node_time_share);
    let memory = nodes(vm, |node| node.memory, thresholds().node_time_share);
    let distance = vm.memory_distance.filter(|distance| *distance > 0.0);
    let distance =
        distance.map(|times| format!("; mean distance {:.0}, local is 10", times * 10.0));
    let text = format!(
        "{} of its memory accesses are remote: it runs on {runs}, its memory is on {memory}{}",
        percent(observed),
        distance.unwrap_or_default()
    );
    // No placement of vCPUs can change this part.
    let has = |node: &&NodeShare| {
        !node.has_cpus
            && node
                .memory
                .is_some_and(|memory| memory >= thresholds().worth_naming)
    };
    let no_cpus: Vec<&NodeShare> = vm.nodes.iter().filter(has).collect();
    match sum(no_cpus.iter().map(|node| node.memory)) {
        None => text,
        Some(share) => {
            let (ids, have) = match no_cpus.as_slice() {
                [node] => (format!("node {}", node.node), "has"),
                nodes => {
                    let ids: Vec<String> = nodes.iter().map(|n| n.node.to_string()).collect();
                    (format!("nodes {}", ids.join(", ")), "have")
                }
            };
            format!(
                "{text}; {} is on {ids}, which {have} no CPUs",
                percent(share)
            )
        }
    }
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

fn devices(vm: &VmView) -> String {
    let remote = vm.devices.iter().filter(|d| d.remote == Some(true));
    let remote: Vec<_> = remote.collect();
    match remote.as_slice() {
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
    }
}

fn what(device: &super::DeviceView) -> String {
    match &device.class {
        Some(class) => format!("{class} device {}", device.name),
        None => format!("device {}", device.name),
    }
}

fn cpi(observed: f64, limit: f64) -> String {
    match observed >= limit {
        true => format!("CPI is {observed:.2}; the limit for its peers is {limit:.2}"),
        false => format!("CPI is {observed:.2}, as for its peers (limit {limit:.2})"),
    }
}

fn cache(observed: f64, limit: f64, suspect: Option<usize>, vms: &[VmView]) -> Words {
    let misses = format!(
        "{} cache misses per 1000 instructions (limit {})",
        number(observed),
        number(limit)
    );
    match suspect {
        Some(vm) => Words::from(misses)
            .push("; ")
            .vm(vms, vm)
            .push(" misses most in the same cache"),
        None => misses.into(),
    }
}

fn smt(observed: f64, beside: Option<usize>, vms: &[VmView]) -> Words {
    let shared = format!(
        "{} of its time the other thread of its core is busy",
        percent(observed)
    );
    let words = match beside {
        Some(vm) => Words::from(shared).push(", most of it with ").vm(vms, vm),
        None => shared.into(),
    };
    words.push(", while cores of its nodes are idle")
}

/// A percentage without decimals, or with one below 10.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 9.95 => format!("{p:.0}\u{a0}%"),
        p => format!("{p:.1}\u{a0}%"),
    }
}

/// A number with two significant digits.
fn number(n: f64) -> String {
    match n {
        n if n >= 9.95 => format!("{n:.0}"),
        n if n.fract() == 0.0 => format!("{n:.0}"),
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
