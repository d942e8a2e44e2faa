//! The status page's table of VMs and their vCPUs.

use maud::{html, Markup};

use super::{about, grouped, percent, severity};
use crate::expose::view::{VcpuView, View, VmView};

/// Rows of the table, VMs and vCPUs together: a page a browser opens at once.
const MAX_ROWS: usize = 500;

const COLUMNS: [&str; 8] = [
    "vCPU",
    "Thread",
    "CPU",
    "Package",
    "Core",
    "Node",
    "On a core",
    "Delay",
];

/// The table, at most [`MAX_ROWS`] rows of it.
pub(super) fn table(view: &View) -> Markup {
    let shown = first_rows(&view.vms);
    let left_out = LeftOut::of(view, &shown);
    html! {
        section aria-labelledby="vms" {
            h2 #vms { "Virtual machines" }
            @if view.vms.is_empty() {
                p { "No KVM virtual machine runs on this host." }
            } @else {
                div.scroll role="region" aria-labelledby="vms" tabindex="0" {
                    table {
                        caption {
                            "Where each vCPU thread was found last, and the shares of the last tick it "
                            "spent on a core and waiting for one"
                        }
                        thead { tr { @for name in COLUMNS { th scope="col" { (name) } } } }
                        @for (vm, vcpus) in &shown { (rows(vm, *vcpus)) }
                    }
                }
                (left_out.note())
            }
        }
    }
}

fn rows(vm: &VmView, vcpus: usize) -> Markup {
    let of_vm = &vm.vcpus;
    html! {
        tbody {
            tr.vm {
                th scope="rowgroup" colspan=(COLUMNS.len()) {
                    div {
                        bdi { (vm.name) }
                        " " span.muted {
                            (grouped(of_vm.len())) " vCPU" @if of_vm.len() != 1 { "s" }
                            (cores(vm))
                        }
                        @let about = about(vm);
                        @if !about.is_empty() { p.about { bdi { (about) } } }
                    }
                }
            }
            @for vcpu in of_vm.iter().take(vcpus) { (row(vcpu)) }
        }
    }
}

/// How many cores the vCPUs together had, and how many more they were ready for.
fn cores(vm: &VmView) -> Markup {
    let known = vm.numbers.time.zip(vm.numbers.delay);
    html! {
        @if let Some((time, delay)) = known {
            (format!(" · had {time:.2} cores, waited for {delay:.2}"))
        }
    }
}

fn row(vcpu: &VcpuView) -> Markup {
    let place = vcpu.place;
    let delay = vcpu.numbers.delay;
    html! {
        tr {
            th scope="row" { (vcpu.index) }
            td { (vcpu.tid) }
            td { (or_unknown(place.map(|w| w.cpu))) }
            td { (or_unknown(place.map(|w| w.package))) }
            td { (or_unknown(place.map(|w| w.core))) }
            td { (or_unknown(place.map(|w| w.node))) }
            td { (or_unknown(vcpu.numbers.time.map(percent))) }
            td.(delay.map_or("", severity)) { (or_unknown(delay.map(percent))) }
        }
    }
}

/// A value, or a dash that is read out as what it means.
fn or_unknown(value: Option<impl maud::Render>) -> Markup {
    html! {
        @match value {
            Some(value) => (value),
            None => span.muted aria-label="unknown" { "–" },
        }
    }
}

/// How many vCPUs of each VM fit into the table, VM by VM.
fn first_rows(vms: &[VmView]) -> Vec<(&VmView, usize)> {
    let mut room = MAX_ROWS;
    let mut shown = Vec::new();
    for vm in vms {
        if room == 0 {
            break;
        }
        let vcpus = vm.vcpus.len().min(room - 1);
        room -= 1 + vcpus;
        shown.push((vm, vcpus));
    }
    shown
}

/// What did not fit.
struct LeftOut {
    vcpus: usize,
    vms: usize,
}

impl LeftOut {
    fn of(view: &View, shown: &[(&VmView, usize)]) -> Self {
        let vcpus: usize = shown.iter().map(|(_, vcpus)| vcpus).sum();
        Self {
            vcpus: view.host.vcpus.saturating_sub(vcpus),
            vms: view.vms.len().saturating_sub(shown.len()),
        }
    }

    fn note(&self) -> Markup {
        html! {
            @if self.vcpus > 0 || self.vms > 0 {
                p.note {
                    (grouped(self.vcpus)) " more vCPUs and " (grouped(self.vms))
                    " more VMs are left out here; " a href="/metrics" { "/metrics" }
                    " has them all."
                }
            }
        }
    }
}
