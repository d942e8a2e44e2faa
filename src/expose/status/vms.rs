//! The VM table, sortable by each cause; a row opens to show the VM's vCPUs.

use maud::{html, Markup};

use super::columns::PageColumn;
use super::format::{count, grouped, number, or_unknown, percent, plural, Severity};
use super::page_state::PageState;
use super::{causes, verdict};
use crate::diagnosis::{Cause, DeviceView, NodeShare, VcpuView, View, VmView};

/// Most VMs in the table, so that browsers render it fast.
const MAX_VMS: usize = 1000;

/// Most victims listed for a VM.
const MAX_PUSHED: usize = 12;

/// Most vCPUs of all open VMs together.
const MAX_VCPUS: usize = 1024;

pub(super) fn section(view: &View, look: &PageState) -> Markup {
    let vms = sorted(view, look);
    let left_out = vms.len().saturating_sub(MAX_VMS);
    html! {
        section #vms aria-labelledby="vms-title" {
            div.head {
                h2 #vms-title { "Virtual machines" }
                p.muted {
                    "Select a column to sort by it, a name to see its vCPUs. Rates cover the last "
                    (format!("{:.0}", view.window)) " s."
                }
            }
            @if view.vms.is_empty() {
                p { "No KVM VM runs on this host." }
            } @else {
                div.scroll #vms-scroll role="region" aria-labelledby="vms-title" tabindex="0" {
                    table.vms {
                        thead { tr { @for column in PageColumn::all() { (head(column, look)) } } }
                        (rows(view, &vms, look))
                    }
                }
                @if left_out > 0 {
                    p.note {
                        (plural(left_out, "more VM")) " not shown; "
                        a href="/metrics" { "/metrics" } " has all of them."
                    }
                }
            }
        }
    }
}

/// VMs with their positions, sorted.
fn sorted<'a>(view: &'a View, look: &PageState) -> Vec<(usize, &'a VmView)> {
    let mut vms: Vec<_> = view.vms.iter().enumerate().collect();
    vms.sort_by(|(_, a), (_, b)| {
        if look.up {
            look.sort.compare(a, b)
        } else {
            look.sort.compare(b, a)
        }
    });
    vms
}

fn head(column: PageColumn, look: &PageState) -> Markup {
    let sorted = (column == look.sort).then_some(if look.up {
        ("ascending", "▲")
    } else {
        ("descending", "▼")
    });
    let info = column.info();
    html! {
        th scope="col" aria-sort=[sorted.map(|(word, _)| word)] {
            button form="look" name="sort" value=(look.sort_by(column))
                data-key={ "sort:" (info.key) } title=(info.help) {
                (info.title)
                span.arrow aria-hidden="true" { (sorted.map_or("", |(_, arrow)| arrow)) }
            }
        }
    }
}

fn rows(view: &View, vms: &[(usize, &VmView)], look: &PageState) -> Markup {
    html! {
        @for (n, vm, open) in opened(vms, look) {
            tbody.open[open.is_some()] #{ "vm-" (n) } {
                tr {
                    @for column in PageColumn::all() { (cell(column, n, vm, open.is_some())) }
                }
                @if let Some(shown) = open {
                    tr.more #{ "more-" (n) } {
                        td colspan=(PageColumn::all().count()) { (details(n, vm, view, shown)) }
                    }
                }
            }
        }
    }
}

/// The VMs in the table; open ones with the number of vCPUs to show.
fn opened<'a>(
    vms: &[(usize, &'a VmView)],
    look: &PageState,
) -> Vec<(usize, &'a VmView, Option<usize>)> {
    let mut room = MAX_VCPUS;
    let shown = vms.iter().take(MAX_VMS);
    let open = |&(n, vm): &(usize, &'a VmView)| {
        let is_open = look.open.contains(&vm.name);
        let open = is_open.then(|| vm.vcpus.len().min(room));
        room -= open.unwrap_or(0);
        (n, vm, open)
    };
    shown.map(open).collect()
}

fn cell(column: PageColumn, n: usize, vm: &VmView, open: bool) -> Markup {
    match column {
        PageColumn::Name => name(n, vm, open),
        _ => scored(column.score(vm), column.text(vm)),
    }
}

fn name(n: usize, vm: &VmView, open: bool) -> Markup {
    html! {
        th scope="row" {
            button.toggle form="look" name="toggle" value=(vm.name) data-key={ "open:" (vm.name) }
                aria-expanded=(if open { "true" } else { "false" })
                aria-controls=[open.then(|| format!("more-{n}"))] {
                span.arrow aria-hidden="true" { (if open { "▾" } else { "▸" }) }
                bdi { (vm.name) }
            }
        }
    }
}

/// A cell whose color shows a score.
fn scored(score: f64, text: Option<String>) -> Markup {
    let severity = Severity::from_score(score);
    html! {
        td.(severity.class()) {
            @if let Some(mark) = severity.mark() { span.mark { (mark) } }
            (or_unknown(text))
        }
    }
}

/// The VMs that this one slows down.
fn pushes(vm: &VmView, view: &View) -> Markup {
    html! {
        @if !vm.pushes.is_empty() {
            p {
                "Slows down "
                @for (n, push) in vm.pushes.iter().take(MAX_PUSHED).enumerate() {
                    @if n > 0 { ", " }
                    @if let Some(victim) = view.vms.get(push.vm) {
                        (super::vm_link(push.vm, &victim.name))
                        " (" (push.cause.info().title) " " (number(push.score)) "×)"
                    }
                }
                @if vm.pushes.len() > MAX_PUSHED { " and " (vm.pushes.len() - MAX_PUSHED) " more" }
                "."
            }
        }
    }
}

fn details(n: usize, vm: &VmView, view: &View, shown: usize) -> Markup {
    html! {
        div.details {
            @if !vm.verdict.is_empty() { p.verdict { (verdict(vm, view)) } }
            @if vm.trouble().next().is_some() {
                (causes(n, vm, view))
            }
            (pushes(vm, view))
            p.muted { (about(vm)) }
            (vcpus(vm, shown))
            @if shown < vm.vcpus.len() {
                p.note { (plural(vm.vcpus.len() - shown, "more vCPU")) " not shown." }
            }
        }
    }
}

/// Facts about a VM that are not in the table.
fn about(vm: &VmView) -> Markup {
    let info = vm.info.iter();
    let info = info.map(|(name, value)| format!("{name} {value}"));
    let node = |share: &NodeShare| {
        let known =
            |what, share: Option<f64>| share.map(|s| format!("{} of its {what}", percent(s)));
        let known = [known("time", share.time), known("memory", share.memory)];
        let known: Vec<String> = known.into_iter().flatten().collect();
        let no_cpus = if share.has_cpus { "" } else { " (no CPUs)" };
        format!("node {}{no_cpus}: {}", share.node, known.join(", "))
    };
    let device = |device: &DeviceView| {
        let class = device.class.as_deref().unwrap_or("device");
        let node = device.node.map(|node| format!(" on node {node}"));
        format!("{class} {}{}", device.name, node.unwrap_or_default())
    };
    let quota = |cores| format!("quota {} cores", number(cores));
    let io = |time| format!("other threads {time:.2} cores");
    let all = info
        .chain(vm.nodes.iter().map(node))
        .chain(vm.devices.iter().map(device))
        .chain(vm.quota.map(quota))
        .chain(vm.io_time.map(io));
    let all: Vec<String> = all.collect();
    html! {
        @for (n, fact) in all.iter().enumerate() {
            @if n > 0 { " · " }
            bdi { (fact) }
        }
    }
}

const VCPU_COLUMNS: [&str; 13] = [
    "vCPU", "Thread", "CPU", "Package", "Core", "Node", "Cores", "Delay", "CPI", "Misses", "Exits",
    "Moves", "I/O here",
];

fn vcpus(vm: &VmView, shown: usize) -> Markup {
    html! {
        div.wide {
            table.vcpus {
                caption.visually-hidden { "vCPUs of " (vm.name) }
                thead { tr { @for name in VCPU_COLUMNS { th scope="col" { (name) } } } }
                tbody { @for vcpu in vm.vcpus.iter().take(shown) { (vcpu_row(vcpu)) } }
            }
        }
    }
}

fn vcpu_row(vcpu: &VcpuView) -> Markup {
    let place = vcpu.place;
    let numbers = &vcpu.numbers;
    let delay = vcpu.waits().unwrap_or(0.0) / Cause::Delay.threshold();
    let cores = |time: Option<f64>| or_unknown(time.map(|time| format!("{time:.2}")));
    html! {
        tr {
            th scope="row" { (grouped(vcpu.index)) }
            td { (vcpu.tid) }
            td { (or_unknown(place.map(|at| at.cpu))) }
            td { (or_unknown(place.map(|at| at.package))) }
            td { (or_unknown(place.map(|at| at.core))) }
            td { (or_unknown(place.map(|at| at.node))) }
            td { (cores(numbers.time)) }
            (scored(delay, numbers.delay_ratio.map(percent)))
            td { (cores(numbers.cpi)) }
            td { (or_unknown(numbers.cache_mpki.map(number))) }
            td { (or_unknown(numbers.exits.map(count))) }
            td { (or_unknown(numbers.migrations.map(number))) }
            td { (cores(vcpu.io_on_core)) }
        }
    }
}
