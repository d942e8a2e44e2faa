//! What is wrong with a VM, in plain words.

use super::cause::{Cause, CauseView, Seen};
use super::{sum, NodeShare, NodeView, Numbers, Tenant, VcpuView, VmView};

/// So many cores of I/O beside a vCPU are why it waits.
const IO_MATTERS: f64 = 0.1;

/// What is wrong: the worst two of what is over its threshold.
pub(super) fn sentence(causes: &[CauseView]) -> String {
    let over = causes.iter().filter(|cause| cause.score >= 1.0);
    // The vCPU that waits most is told of once.
    let waits = causes
        .iter()
        .any(|cause| cause.cause == Cause::Delay && cause.score >= 1.0);
    let told = over.filter(|cause| !(waits && cause.cause == Cause::Starved));
    let told: Vec<String> = told.take(2).map(|cause| capital(&cause.text)).collect();
    match told.is_empty() {
        true => String::new(),
        false => told.join(". ") + ".",
    }
}

/// The text as the beginning of a sentence; "vCPU" stays as it is.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !text.starts_with("vCPU") => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

/// A cause in words, without a full stop.
pub(super) fn text(
    Seen(cause, observed, threshold): Seen,
    vm: &VmView,
    vms: &[VmView],
    nodes: &[NodeView],
) -> String {
    match cause {
        Cause::Delay => delay(vm, vms, nodes),
        Cause::Starved => starved(vm),
        Cause::Quota => quota(observed, vm),
        Cause::MemoryRemote => memory(observed, vm),
        Cause::DeviceRemote => devices(vm),
        Cause::CpiPeers => cpi(observed, threshold),
        Cause::Cache => cache(observed, vm, vms, nodes),
        Cause::Smt => format!(
            "{} of its time it shares a core with a busy thread, while cores of its nodes are idle",
            percent(observed)
        ),
        Cause::Throttling => format!(
            "the package it runs on was too hot for {} of the time",
            percent(observed)
        ),
        Cause::Exits => format!(
            "it leaves the guest {} times for each second it runs",
            thousands(observed)
        ),
    }
}

fn delay(vm: &VmView, vms: &[VmView], nodes: &[NodeView]) -> String {
    let Some((vcpu, ratio)) = vm.waits_most() else {
        return String::new();
    };
    let waits = format!(
        "vCPU {} waits {} of the time it wants to run",
        vcpu.index,
        percent(ratio)
    );
    match why_it_waits(vm, vcpu, vms, nodes) {
        Some(why) if ratio >= Cause::Delay.threshold() => format!("{waits}; {why}"),
        _ => waits,
    }
}

/// Who uses the core of a vCPU that waits.
fn why_it_waits(
    vm: &VmView,
    vcpu: &VcpuView,
    vms: &[VmView],
    nodes: &[NodeView],
) -> Option<String> {
    if vcpu.io_on_core.is_some_and(|time| time >= IO_MATTERS) {
        return Some("an I/O thread of the same VM uses its core".to_owned());
    }
    let place = vcpu.place?;
    let threads = nodes.iter().flat_map(|node| &node.cores);
    let mut threads = threads.flat_map(|core| &core.threads);
    let here = threads.find(|thread| thread.cpu == place.cpu)?;
    let others: Vec<&VmView> = others(&here.vcpus, vm, vms);
    let own = here.vcpus.iter().filter_map(|tenant| vms.get(tenant.vm));
    let own = own.filter(|tenant| tenant.name == vm.name).count();
    match others.as_slice() {
        [] if own > 1 => Some(format!("{own} of its own vCPUs want the same CPU")),
        [] => None,
        [other] => Some(format!("{} wants the same CPU", other.name)),
        [other, rest @ ..] => Some(format!(
            "{} and {} more want the same CPU",
            other.name,
            rest.len()
        )),
    }
}

/// The other VMs among tenants, each once.
fn others<'a>(tenants: &[Tenant], vm: &VmView, vms: &'a [VmView]) -> Vec<&'a VmView> {
    let mut others: Vec<usize> = tenants.iter().map(|tenant| tenant.vm).collect();
    others.dedup();
    let others = others.into_iter().filter_map(|n| vms.get(n));
    others.filter(|other| other.name != vm.name).collect()
}

fn starved(vm: &VmView) -> String {
    match vm.waits_most() {
        Some((vcpu, ratio)) => format!(
            "vCPU {} waits {} of the time it wants to run, much more than its siblings",
            vcpu.index,
            percent(ratio)
        ),
        None => String::new(),
    }
}

fn quota(observed: f64, vm: &VmView) -> String {
    let cores = vm.quota.map(|cores| format!(" of {} cores", number(cores)));
    format!(
        "its CPU quota{} runs out in {} of all periods",
        cores.unwrap_or_default(),
        percent(observed)
    )
}

fn memory(observed: f64, vm: &VmView) -> String {
    let has = |node: &&NodeShare| node.memory.is_some_and(|memory| memory >= 0.01);
    let listed = |nodes: Vec<&NodeShare>| {
        let numbers: Vec<String> = nodes.iter().map(|n| n.node.to_string()).collect();
        match numbers.as_slice() {
            [] => "nodes".to_owned(),
            [node] => format!("node {node},"),
            _ => format!("nodes {},", numbers.join(", ")),
        }
    };
    let nodes = || vm.nodes.iter().filter(has);
    let remote = listed(nodes().filter(|node| node.is_remote()).collect());
    let text = format!(
        "{} of its memory is on {remote} where it does not run",
        percent(observed)
    );
    // What no placement of vCPUs can change is said, and not counted.
    let no_cpus: Vec<&NodeShare> = nodes().filter(|node| !node.has_cpus).collect();
    match sum(no_cpus.iter().map(|node| node.memory)) {
        None => text,
        Some(share) => {
            let have = if no_cpus.len() == 1 { "has" } else { "have" };
            format!(
                "{text}; {} is on {} which {have} no CPUs",
                percent(share),
                listed(no_cpus)
            )
        }
    }
}

fn devices(vm: &VmView) -> String {
    let remote = vm.devices.iter().filter(|d| d.remote == Some(true));
    let remote: Vec<_> = remote.collect();
    match remote.as_slice() {
        [] => "all its devices are on nodes where it runs".to_owned(),
        [device] => format!(
            "its {} is on node {}, where it does not run",
            what(device),
            device.node.map_or("?".to_owned(), |node| node.to_string())
        ),
        _ => format!(
            "{} of its devices are on nodes where it does not run",
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
        true => format!(
            "it needs {observed:.2} cycles an instruction, where {limit:.2} would be much for VMs of its \
             flavor"
        ),
        false => format!("it needs {observed:.2} cycles an instruction, as VMs of its flavor do"),
    }
}

fn cache(observed: f64, vm: &VmView, vms: &[VmView], nodes: &[NodeView]) -> String {
    let misses = format!(
        "it misses the cache {} times in 1000 instructions",
        number(observed)
    );
    let is_high = observed >= Cause::Cache.threshold();
    match neighbour(vm, vms, nodes).filter(|_| is_high) {
        Some(other) => format!("{misses}; {} misses most in the same cache", other.name),
        None => misses,
    }
}

/// The other VM with most misses in a cache that the VM uses, where caches are told apart; none
/// where that are fewer than its own.
fn neighbour<'a>(vm: &VmView, vms: &'a [VmView], nodes: &[NodeView]) -> Option<&'a VmView> {
    let cores = || nodes.iter().flat_map(|node| &node.cores);
    let mine = |core: &&super::CoreView| {
        let at = |vcpu: &VcpuView| vcpu.place.map(|p| (p.package, p.core));
        vm.vcpus
            .iter()
            .any(|vcpu| at(vcpu) == Some((core.package, core.core)))
    };
    let llcs: Vec<u32> = cores().filter(mine).filter_map(|core| core.llc).collect();
    let beside = cores().filter(|core| core.llc.is_some_and(|llc| llcs.contains(&llc)));
    let tenants = beside.flat_map(|core| &core.threads).flat_map(|t| &t.vcpus);
    let others = tenants.filter_map(|tenant| vms.get(tenant.vm));
    let others = others.filter(|other| other.name != vm.name);
    // A second: instructions are about time over CPI.
    let misses = |vm: &VmView| -> f64 {
        let Numbers {
            time,
            cpi,
            cache_mpki,
            ..
        } = vm.numbers;
        let known = time.zip(cpi).zip(cache_mpki);
        known.map_or(0.0, |((time, cpi), mpki)| mpki * time / cpi)
    };
    let most = others.max_by(|a, b| misses(a).total_cmp(&misses(b)));
    most.filter(|other| misses(other) > misses(vm))
}

/// A share as whole percents, or tenths below 10.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 9.95 => format!("{p:.0}\u{a0}%"),
        p => format!("{p:.1}\u{a0}%"),
    }
}

/// A number with two digits that count.
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
