//! Packs bundles into groups. Reading a group interrupts the core of its thread, which causes an
//! exit of a guest there: use few groups, as long as each gets all its counters at once.

use super::super::counters::Attr;
use super::super::events::{self, Code, Mode};
use super::super::probe::Kernel;
use super::{Bundle, GroupPlan, Machine};

/// Packs the default bundles (guest, host), then the others in order. In the worst case each
/// bundle is its own group, about 50 in all (16 raw events and 5 sets, in two modes).
pub(super) fn groups(
    base: Vec<Bundle>,
    further: Vec<Bundle>,
    machine: &Machine,
    kernel: &dyn Kernel,
) -> Vec<GroupPlan> {
    let packer = Packer { machine, kernel };
    let base = base.into_iter().filter(|bundle| !bundle.events.is_empty());
    let mut packed: Vec<Bundle> = Vec::new();
    for bundle in base.flat_map(|bundle| packer.split(bundle)) {
        let name = match packed.last() {
            Some(last) => format!("{}+{}", last.name, bundle.name),
            None => bundle.name.clone(),
        };
        packer.append(&mut packed, bundle, name);
    }
    for bundle in further {
        let name = packed.last().map(|last| last.name.clone());
        packer.append(&mut packed, bundle, name.unwrap_or_default());
    }
    packed.into_iter().map(group).collect()
}

struct Packer<'a> {
    machine: &'a Machine,
    kernel: &'a dyn Kernel,
}

impl Packer<'_> {
    /// Halves a bundle that does not get all its counters: two halves that take turns are better
    /// than a group that never counts.
    fn split(&self, bundle: Bundle) -> Vec<Bundle> {
        if bundle.events.len() < 2 || self.fits(&bundle, 0) {
            return vec![bundle];
        }
        let mut first = bundle;
        let half = first.events.len().div_ceil(2);
        let second = Bundle {
            name: format!("{}_2", first.name),
            events: first.events.split_off(half),
            ..first.clone()
        };
        vec![first, second]
    }

    /// Merges a bundle into the last group if both get their counters together, with one counter to
    /// spare if the NMI watchdog may need it on another core.
    fn append(&self, packed: &mut Vec<Bundle>, bundle: Bundle, joined_name: String) {
        if let Some(last) = packed.last_mut() {
            let may = !last.alone && !bundle.alone && last.only_on == bundle.only_on;
            let mut joined = last.clone();
            joined.events.extend(bundle.events.iter().cloned());
            if may && self.fits(&joined, usize::from(self.machine.nmi_watchdog)) {
                joined.name = joined_name;
                *last = joined;
                return;
            }
        }
        packed.push(bundle);
    }

    fn fits(&self, bundle: &Bundle, spare: usize) -> bool {
        bundle.parts().iter().all(|part| {
            let spare = part.first().map(spare_of).into_iter().cycle().take(spare);
            let events: Vec<Attr> = part.iter().copied().chain(spare).collect();
            // On a machine with several types of core, this thread runs on one of them, and the
            // groups of the others would appear to get no counters: check only that they open.
            if self.machine.is_hybrid() {
                self.kernel.opens(&events).is_ok()
            } else {
                self.kernel.runs(&events)
            }
        })
    }
}

/// One more event of the same PMU: cycles, as the watchdog uses.
fn spare_of(attr: &Attr) -> Attr {
    let pmu = attr.words[0] & (u64::from(u32::MAX) << events::PERF_PMU_TYPE_SHIFT);
    let mode = if attr.exclude_host {
        Mode::Guest
    } else {
        Mode::Host
    };
    let cycles = events::attrs(Code::Hardware(0), mode, &[]);
    let config = match attr.kind {
        events::PERF_TYPE_HARDWARE | events::PERF_TYPE_HW_CACHE => pmu,
        _ => 0,
    };
    Attr {
        words: [config, 0, 0, 0],
        ..cycles[0]
    }
}

fn group(bundle: Bundle) -> GroupPlan {
    let parts = bundle.parts();
    GroupPlan {
        name: bundle.name,
        parts,
        scaled: bundle.only_on.is_none(),
        feeds: bundle.events.into_iter().map(|(feed, _)| feed).collect(),
    }
}
