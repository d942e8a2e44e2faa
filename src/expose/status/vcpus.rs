//! The status page's table of VMs and their vCPUs.

use maud::{html, Markup};

use super::{about, grouped, percent, severity};
use crate::snapshot::{LastTick, Snapshot, VcpuRow, VmRow};

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
pub(super) fn table(snapshot: &Snapshot) -> Markup {
    let shown = first_rows(&snapshot.vms);
    let left_out = LeftOut::of(snapshot, &shown);
    html! {
        section aria-labelledby="vms" {
            h2 #vms { "Virtual machines" }
            @if snapshot.vms.is_empty() {
                p { "No KVM virtual machine runs on this host." }
            } @else {
                div.scroll role="region" aria-labelledby="vms" tabindex="0" {
                    table {
                        caption {
                            "Where each vCPU thread was found last, and the shares of the last tick it "
                            "spent on a core and waiting for one"
                        }
                        thead { tr { @for name in COLUMNS { th scope="col" { (name) } } } }
                        @for (vm, vcpus) in &shown { (rows(snapshot, vm, *vcpus)) }
                    }
                }
                (left_out.note())
            }
        }
    }
}

fn rows(snapshot: &Snapshot, vm: &VmRow, vcpus: usize) -> Markup {
    let of_vm = snapshot.vcpus.get(vm.vcpus.clone()).unwrap_or_default();
    html! {
        tbody {
            tr.vm {
                th scope="rowgroup" colspan=(COLUMNS.len()) {
                    div {
                        bdi { (vm.labels.get("vm").unwrap_or("?")) }
                        " " span.muted {
                            (grouped(of_vm.len())) " vCPU" @if of_vm.len() != 1 { "s" }
                            (cores(of_vm))
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

/// How many cores the vCPUs together had in the last tick, and how many more they were ready for.
fn cores(vcpus: &[VcpuRow]) -> Markup {
    let known = || vcpus.iter().filter_map(|vcpu| vcpu.last_tick.as_ref());
    let sum = |share: fn(&LastTick) -> f64| known().map(share).sum::<f64>();
    html! {
        @if known().next().is_some() {
            (format!(
                " · had {:.2} cores, waited for {:.2}",
                sum(LastTick::time_share),
                sum(LastTick::delay_share),
            ))
        }
    }
}

fn row(vcpu: &VcpuRow) -> Markup {
    let place = vcpu.whereabouts;
    let last = vcpu.last_tick;
    let delay = last.map(|last| last.delay_share());
    html! {
        tr {
            th scope="row" { (vcpu.index) }
            td { (vcpu.tid) }
            td { (or_unknown(place.map(|w| w.cpu))) }
            td { (or_unknown(place.map(|w| w.place.package))) }
            td { (or_unknown(place.map(|w| w.place.core))) }
            td { (or_unknown(place.map(|w| w.place.numa_node))) }
            td { (or_unknown(last.map(|last| percent(last.time_share())))) }
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
fn first_rows(vms: &[VmRow]) -> Vec<(&VmRow, usize)> {
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
    fn of(snapshot: &Snapshot, shown: &[(&VmRow, usize)]) -> Self {
        let vcpus: usize = shown.iter().map(|(_, vcpus)| vcpus).sum();
        Self {
            vcpus: snapshot.vcpus.len().saturating_sub(vcpus),
            vms: snapshot.vms.len().saturating_sub(shown.len()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(vcpus: std::ops::Range<usize>) -> VmRow {
        VmRow {
            labels: Default::default(),
            info: Default::default(),
            vcpus,
        }
    }

    #[test]
    fn rows_are_bounded_whatever_the_vms_look_like() {
        let one_large = [vm(0..10_000), vm(10_000..10_001)];
        let shown = first_rows(&one_large);
        assert_eq!((shown.len(), shown[0].1), (1, MAX_ROWS - 1));
        let many_empty = vec![vm(0..0); 10_000];
        assert_eq!(first_rows(&many_empty).len(), MAX_ROWS);
        let small = [vm(0..2), vm(2..3)];
        let counts: Vec<usize> = first_rows(&small).iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [2, 1]);
    }
}
