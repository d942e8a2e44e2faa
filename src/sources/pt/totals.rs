//! Running totals of each vCPU, and the facts made of them.
//!
//! Totals never decrease. Unknown facts are omitted: all of a vCPU before its first recording, all
//! of a guest that is not visible, and exit reasons that the trace does not contain. Guest and
//! host mode are both reported from the first recording on, so that a rate has a first value.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Capture, Outcome};
use crate::engine::total::add;
use crate::engine::Fact;
use crate::metric::{metrics, Buckets, FactValue, Keys, Label, Metric};
use crate::pt::{Histogram, ModeSummary, Summary};

metrics! { METRICS of "pt":
    CONDITIONAL_BRANCHES = Metric::counter("kvm_vcpu_pt_conditional_branches_total", Keys::Vcpu, &["mode", "outcome"],
        "Conditional branches in recordings of the vCPU, by mode and by taken or not; divided by kvm_vcpu_pt_cycles_total: branches per cycle");
    INDIRECT_BRANCHES = Metric::counter("kvm_vcpu_pt_indirect_branches_total", Keys::Vcpu, &["mode"],
        "Indirect jumps and calls, returns and far transfers in recordings of the vCPU");
    ASYNC_EVENTS = Metric::counter("kvm_vcpu_pt_async_events_total", Keys::Vcpu, &["mode"],
        "Interrupts, faults and aborts in recordings of the vCPU");
    ADDRESS_SPACE_SWITCHES = Metric::counter("kvm_vcpu_pt_address_space_switches_total", Keys::Vcpu, &["mode"],
        "Loads of CR3 in recordings of the vCPU; with page-table isolation, one for each switch between user and kernel");
    CYCLES = Metric::counter("kvm_vcpu_pt_cycles_total", Keys::Vcpu, &["mode"],
        "Unhalted core cycles in recordings of the vCPU; divided by kvm_vcpu_pt_traced_seconds_total: the mean core clock");
    TRACED = Metric::counter("kvm_vcpu_pt_traced_seconds_total", Keys::Vcpu, &["mode"],
        "Time covered by recordings: guest, host (KVM and the VMM on the vCPU's behalf), and unknown if the trace does not show which");
    ENTRIES = Metric::counter("kvm_vcpu_pt_entries_total", Keys::Vcpu, &[],
        "VM entries in recordings of the vCPU; absent if the guest is not visible");
    EXITS = Metric::counter("kvm_vcpu_pt_exits_total", Keys::Vcpu, &["reason"],
        "VM exits in recordings of the vCPU, by VMX reason if the CPU has event trace, else unknown; the sum over reason is all exits");
    POWER_EVENTS = Metric::counter("kvm_vcpu_pt_power_events_total", Keys::Vcpu, &["event"],
        "Power events in recordings of the vCPU: mwait, sleep state entry and exit, stop of the core clock; each absent until it occurs");
    BYTES = Metric::counter("kvm_vcpu_pt_bytes_total", Keys::Vcpu, &[],
        "Bytes of trace recorded for the vCPU");
    SKIPPED = Metric::counter("kvm_vcpu_pt_skipped_bytes_total", Keys::Vcpu, &[],
        "Bytes of trace that could not be decoded, up to the next synchronization point");
    PSBS = Metric::counter("kvm_vcpu_pt_psbs_total", Keys::Vcpu, &[],
        "Synchronization points (PSB packets) in recordings of the vCPU");
    OVERFLOWS = Metric::counter("kvm_vcpu_pt_overflows_total", Keys::Vcpu, &[],
        "Times the CPU lost packets of a recording because it could not write them fast enough (OVF packets)");
    DECODE_ERRORS = Metric::counter("kvm_vcpu_pt_decode_errors_total", Keys::Vcpu, &[],
        "Invalid packets in recordings of the vCPU");
    CAPTURES = Metric::counter("kvm_vcpu_pt_captures_total", Keys::Vcpu, &["result"],
        "Attempts to record the vCPU, by result: complete, truncated (the buffer was full), partial (with gaps), collision, idle (the vCPU did not run), busy (another program used Intel PT), refused (by the kernel), gone (the thread exited); each absent until it occurs");
    GUEST_RUN = Metric::histogram("kvm_vm_pt_guest_run_seconds", Keys::Vm, &[],
        "Duration of guest runs from VM entry to VM exit, in recordings of the VM's vCPUs");
    HOST_HANDLING = Metric::histogram("kvm_vm_pt_host_handling_seconds", Keys::Vm, &[],
        "Time from VM exit to the next VM entry, in recordings of the VM's vCPUs");
}

/// Bounds of the histograms in nanoseconds, 256 ns to 0.27 s: every second of the powers of two
/// of [`Histogram`].
const BOUNDS: [u64; 11] = [
    256,
    1_024,
    4_096,
    16_384,
    65_536,
    262_144,
    1_048_576,
    4_194_304,
    16_777_216,
    67_108_864,
    268_435_456,
];

/// Exit reasons have 16-bit numbers, of which Intel uses about 75 (SDM volume 3, appendix C).
/// Numbers from this one on are counted as `other`: they are decoding errors, and the guest can
/// influence the bytes.
const REASONS: u16 = 128;

/// Label of exits whose reason is not in the trace.
const UNKNOWN: &str = "unknown";
const OTHER: &str = "other";

/// Names of VMX exit reasons by number.
pub(crate) type ReasonNames = BTreeMap<u16, String>;

/// Totals of one vCPU.
#[derive(Debug, Default)]
pub(crate) struct PtVcpuTotals {
    /// Turns by result.
    outcomes: [u64; Outcome::ALL.len()],
    /// Sum of all recordings, without exit reasons and histograms; `None` before the first.
    sum: Option<Summary>,
    bytes: u64,
    /// Exits by the `reason` label.
    exits: BTreeMap<String, u64>,
}

/// Totals of one VM that are not kept per vCPU. They remain when a vCPU is unplugged.
#[derive(Debug, Default)]
pub(crate) struct PtVmTotals {
    guest_runs: Histogram,
    host_handling: Histogram,
    known: bool,
}

impl PtVmTotals {
    /// Adds a recording of one of the VM's vCPUs.
    pub(crate) fn add(&mut self, summary: &Summary) {
        self.known = true;
        self.guest_runs.add(&summary.guest_runs);
        self.host_handling.add(&summary.host_handling);
    }

    /// The facts of the VM; there are no guest runs if the guest is not visible.
    pub(crate) fn facts(&self, sees_guest: bool) -> Arc<[Fact]> {
        let fact = |metric, histogram: &Histogram| {
            let buckets = Buckets::from_powers(&BOUNDS, histogram.counts(), histogram.sum());
            let value = FactValue::Histogram(Arc::new(buckets));
            Fact::new(metric, [], value)
        };
        if self.known && sees_guest {
            Arc::new([
                fact(&GUEST_RUN, &self.guest_runs),
                fact(&HOST_HANDLING, &self.host_handling),
            ])
        } else {
            Arc::new([])
        }
    }
}

impl PtVcpuTotals {
    /// Counts a turn.
    pub(crate) fn count(&mut self, outcome: Outcome) {
        let of = Outcome::ALL.iter().zip(&mut self.outcomes);
        let of_outcome = of.filter(|(o, _)| **o == outcome);
        of_outcome.for_each(|(_, n)| *n += 1);
    }

    /// Adds a recording and its summary.
    pub(crate) fn add(&mut self, capture: &Capture, summary: &Summary, names: &ReasonNames) {
        let mut summary = summary.clone();
        let reasons = std::mem::take(&mut summary.exit_reasons);
        // The histograms are kept per VM.
        summary.guest_runs = Histogram::default();
        summary.host_handling = Histogram::default();
        let with_reason = reasons.values().fold(0u64, |sum, n| sum.saturating_add(*n));
        for (number, count) in &reasons {
            self.count_exits(&reason(*number, names), *count);
        }
        self.count_exits(UNKNOWN, summary.exits.saturating_sub(with_reason));
        self.bytes = self.bytes.saturating_add(capture.trace.bytes.len() as u64);
        self.sum.get_or_insert_default().add(&summary);
    }

    fn count_exits(&mut self, reason: &str, count: u64) {
        if count > 0 {
            add(self.exits.entry(reason.to_owned()).or_default(), count);
        }
    }

    /// The facts of the vCPU with index `vcpu`.
    pub(crate) fn facts(&self, vcpu: u32, sees_guest: bool) -> Arc<[Fact]> {
        let mut facts = Facts {
            vcpu,
            all: Vec::new(),
        };
        for (outcome, count) in Outcome::ALL.iter().zip(self.outcomes) {
            if count > 0 {
                let labels = [("result", outcome.label().into())];
                facts.count(&CAPTURES, &labels, count);
            }
        }
        if let Some(sum) = &self.sum {
            self.add_facts(sum, sees_guest, &mut facts);
        }
        facts.all.into()
    }

    fn add_facts(&self, sum: &Summary, sees_guest: bool, facts: &mut Facts) {
        let sides = [
            ("guest", &sum.guest, sees_guest),
            ("host", &sum.host, true),
            (
                "unknown",
                &sum.unknown,
                sum.unknown != ModeSummary::default(),
            ),
        ];
        for (mode, side, _) in sides.iter().filter(|(_, _, shown)| *shown) {
            facts.side(mode, side);
        }
        if sees_guest {
            facts.count(&ENTRIES, &[], sum.entries);
            for (reason, count) in &self.exits {
                let labels = [("reason", reason.clone().into())];
                facts.count(&EXITS, &labels, *count);
            }
        }
        let power = [
            ("mwait", sum.power.mwait),
            ("entry", sum.power.entries),
            ("exit", sum.power.exits),
            ("stop", sum.power.stops),
        ];
        for (event, count) in power.iter().filter(|(_, count)| *count > 0) {
            facts.count(&POWER_EVENTS, &[("event", (*event).into())], *count);
        }
        for (metric, count) in [
            (&BYTES, self.bytes),
            (&SKIPPED, sum.skipped_bytes),
            (&PSBS, sum.packets.psb),
            (&OVERFLOWS, sum.packets.ovf),
            (&DECODE_ERRORS, sum.packets.err),
        ] {
            facts.count(metric, &[], count);
        }
    }
}

fn reason(number: u16, names: &ReasonNames) -> String {
    match names.get(&number) {
        Some(name) => name.clone(),
        None if number < REASONS => format!("reason_{number}"),
        None => OTHER.to_owned(),
    }
}

/// Facts of one vCPU; labels are those besides `vcpu`.
struct Facts {
    vcpu: u32,
    all: Vec<Fact>,
}

impl Facts {
    fn count(&mut self, metric: &'static Metric, own: &[Label], count: u64) {
        self.push(metric, own, FactValue::Int(count));
    }

    fn push(&mut self, metric: &'static Metric, own: &[Label], value: FactValue) {
        let own = own.iter().cloned();
        let labels = std::iter::once(("vcpu", self.vcpu.into())).chain(own);
        self.all.push(Fact::new(metric, labels, value));
    }

    fn side(&mut self, mode: &'static str, side: &ModeSummary) {
        for (outcome, count) in [("taken", side.taken), ("not_taken", side.not_taken)] {
            let labels = [("mode", mode.into()), ("outcome", outcome.into())];
            self.count(&CONDITIONAL_BRANCHES, &labels, count);
        }
        for (metric, count) in [
            (&INDIRECT_BRANCHES, side.indirect),
            (&ASYNC_EVENTS, side.asynchronous),
            (&ADDRESS_SPACE_SWITCHES, side.address_spaces),
            (&CYCLES, side.cycles),
        ] {
            self.count(metric, &[("mode", mode.into())], count);
        }
        let time = FactValue::Nanoseconds(side.nanoseconds);
        self.push(&TRACED, &[("mode", mode.into())], time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Kind;
    use crate::snapshot::metrics;

    fn capture(bytes: usize) -> Capture {
        let mut capture = Capture::default();
        capture.trace.bytes = vec![0; bytes];
        capture
    }

    fn reported(facts: &[Fact], metric: &str) -> Vec<(String, FactValue)> {
        let of = facts.iter().filter(|fact| fact.metric == metric);
        let line = |fact: &Fact| {
            let labels = fact.labels.iter().map(|(_, v)| v.to_string());
            (labels.collect::<Vec<_>>().join(" "), fact.value.clone())
        };
        of.map(line).collect()
    }

    fn summary() -> Summary {
        let mut summary = Summary {
            exits: 10,
            entries: 9,
            exit_reasons: BTreeMap::from([(48, 4), (12, 1), (300, 2)]),
            ..Summary::default()
        };
        summary.guest.taken = 7;
        summary.host.nanoseconds = 1500;
        summary
    }

    #[test]
    fn vcpu_without_recording_has_no_facts() {
        let mut totals = PtVcpuTotals::default();
        assert!(totals.facts(0, true).is_empty());
        totals.count(Outcome::Idle);
        let facts = totals.facts(0, true);
        assert_eq!(facts.len(), 1);
        let captures = reported(&facts, "kvm_vcpu_pt_captures_total");
        assert_eq!(captures, [("0 idle".to_owned(), FactValue::Int(1))]);
        assert!(PtVmTotals::default().facts(true).is_empty());
    }

    #[test]
    fn exits_have_names_numbers_or_no_reason() {
        let mut totals = PtVcpuTotals::default();
        let names = ReasonNames::from([(48, "ept_violation".to_owned())]);
        totals.add(&capture(1), &summary(), &names);
        let exits = reported(&totals.facts(3, true), "kvm_vcpu_pt_exits_total");
        let exits: Vec<_> = exits.iter().map(|(l, v)| (l.as_str(), v.clone())).collect();
        let n = FactValue::Int;
        assert_eq!(
            exits,
            [
                ("3 ept_violation", n(4)),
                ("3 other", n(2)),
                ("3 reason_12", n(1)),
                ("3 unknown", n(3)),
            ]
        );
    }

    #[test]
    fn hidden_guest_is_absent_and_not_0() {
        let mut totals = PtVcpuTotals::default();
        totals.add(&capture(5), &summary(), &ReasonNames::new());
        let mut vm = PtVmTotals::default();
        vm.add(&summary());
        for fact in totals.facts(0, false).iter().chain(vm.facts(false).iter()) {
            assert!(!fact.metric.name.contains("exits") && !fact.metric.name.contains("entries"));
            assert!(!fact.labels.contains(&("mode", "guest".into())));
        }
        assert!(vm.facts(false).is_empty());
        let unknown = ("mode", "unknown".into());
        let facts = totals.facts(0, true);
        assert!(!facts.iter().any(|fact| fact.labels.contains(&unknown)));
    }

    #[test]
    fn every_fact_is_in_the_catalog_with_its_labels() {
        let mut totals = PtVcpuTotals::default();
        Outcome::ALL.iter().for_each(|o| totals.count(*o));
        let mut all = summary();
        all.unknown.taken = 1;
        all.power.mwait = 1;
        totals.add(&capture(5), &all, &ReasonNames::new());
        let mut vm = PtVmTotals::default();
        vm.add(&all);
        let (vcpu, vm) = (totals.facts(0, true), vm.facts(true));
        let facts: Vec<&Fact> = vcpu.iter().chain(vm.iter()).collect();
        for fact in &facts {
            let metric = fact.metric;
            assert_eq!(metric.source, "pt");
            for (label, _) in &fact.labels {
                assert!(
                    metric.labels().any(|known| known == *label),
                    "{} {label}",
                    metric.name
                );
            }
            let histogram = matches!(fact.value, FactValue::Histogram(_));
            assert_eq!(metric.kind == Kind::Histogram, histogram);
        }
        let ours = metrics::CATALOG.iter().filter(|m| m.source == "pt");
        for metric in ours {
            assert!(
                facts.iter().any(|fact| fact.metric == metric.name),
                "{} is never reported",
                metric.name
            );
        }
    }

    #[test]
    fn bounds_are_upper_bounds_of_their_buckets() {
        let mut histogram = Histogram::default();
        for n in [1, 256, 257, 1024, 1025, 1 << 28, (1 << 28) + 1, u64::MAX] {
            histogram.observe(n);
        }
        let buckets = Buckets::from_powers(&BOUNDS, histogram.counts(), histogram.sum());
        let filled: Vec<_> = buckets.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(
            filled,
            [
                (Some(256), 2),
                (Some(1024), 2),
                (Some(4096), 1),
                (Some(1 << 28), 1),
                (None, 2)
            ]
        );
        assert_eq!(buckets.iter().count(), 12);
        assert_eq!(buckets.count(), 8);
    }
}
