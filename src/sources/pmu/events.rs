//! The table of events: the metric of each event, and its encoding.

use crate::config::EventSet;
use crate::host::cpu_model::{CpuModel, X86Vendor};
use crate::host::label::label_values;
use crate::host::pmu::{Encoding, Pmu};
use crate::metric::Metric;

use super::counters::{Attr, Filter};
use super::metrics::{
    BRANCHES, BRANCH_MISSES, CACHE_MISSES, CACHE_REFERENCES, CYCLES, DRAM_LOADS, DTLB_LOAD_MISSES,
    INSTRUCTIONS, REF_CYCLES, STALLED_CYCLES, TOPDOWN_SLOTS,
};

/// `perf_type_id` of linux/perf_event.h.
pub(crate) const PERF_TYPE_HARDWARE: u32 = 0;
pub(crate) const PERF_TYPE_SOFTWARE: u32 = 1;
pub(crate) const PERF_TYPE_TRACEPOINT: u32 = 2;
pub(crate) const PERF_TYPE_HW_CACHE: u32 = 3;
pub(crate) const PERF_TYPE_RAW: u32 = 4;

/// Position of the PMU's number in the `config` of a generic event, on machines with a PMU for
/// each type of core (`PERF_PMU_TYPE_SHIFT`, linux/perf_event.h).
pub(crate) const PERF_PMU_TYPE_SHIFT: u32 = 32;

/// Data TLB, read, miss: `PERF_COUNT_HW_CACHE_DTLB | OP_READ << 8 | RESULT_MISS << 16`.
const DTLB_READ_MISS: u64 = 0x1_0003;

label_values! {
    /// The mode of a vCPU thread that is counted: the `mode` label.
    pub(crate) enum Mode {
        /// Guest mode: `exclude_host`.
        Guest = "guest",
        /// Host mode, the VMM and KVM on behalf of the vCPU: `exclude_guest`.
        Host = "host",
    }
}

/// Encoding of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// A generic event: `perf_hw_id`.
    Hardware(u64),
    /// A generic cache event: id, operation and result.
    Cache(u64),
    /// A raw event of this CPU model, for the PMU of all its cores.
    Raw(u64),
    /// An event of one PMU, as encoded by sysfs.
    Pmu(Encoding),
}

/// An event and the metric it feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub metric: &'static Metric,
    /// Label besides `mode`, if the metric has one.
    pub label: Option<(&'static str, String)>,
    /// Encoding of the event.
    pub code: Code,
}

impl Event {
    fn new(metric: &'static Metric, code: Code) -> Self {
        Self {
            metric,
            label: None,
            code,
        }
    }

    fn labelled(metric: &'static Metric, name: &'static str, value: &str, code: Code) -> Self {
        Self {
            metric,
            label: Some((name, value.to_owned())),
            code,
        }
    }
}

/// Events of the default group of a mode. Guest mode has six, so that they fit the three fixed and
/// four general counters of an Intel core with hyper-threading.
///
/// Cache references and misses are the kernel's generic events: the last level on Intel
/// (`intel_perfmon_event_map`, arch/x86/events/intel/core.c), L2 on AMD Zen
/// (`amd_zen2_perfmon_event_map` and similar, arch/x86/events/amd/core.c), the L1 data cache on
/// ARM (`armv8_pmuv3_perf_map`, drivers/perf/arm_pmuv3.c).
pub(crate) fn base(mode: Mode) -> Vec<Event> {
    use Code::Hardware;
    let mut events = vec![
        Event::new(&CYCLES, Hardware(0)),
        Event::new(&INSTRUCTIONS, Hardware(1)),
    ];
    if mode == Mode::Guest {
        events.extend([
            Event::new(&REF_CYCLES, Hardware(9)),
            Event::new(&CACHE_REFERENCES, Hardware(2)),
            Event::new(&CACHE_MISSES, Hardware(3)),
            Event::new(&BRANCH_MISSES, Hardware(5)),
        ]);
    }
    events
}

/// Events of an optional set on this CPU; empty if the CPU has no such events.
pub(crate) fn optional(set: EventSet, model: &CpuModel, pmus: &[Pmu]) -> Vec<Event> {
    match set {
        EventSet::Branches => vec![Event::new(&BRANCHES, Code::Hardware(4))],
        EventSet::Dtlb => vec![Event::new(&DTLB_LOAD_MISSES, Code::Cache(DTLB_READ_MISS))],
        EventSet::Stalled => vec![
            Event::labelled(&STALLED_CYCLES, "stage", "frontend", Code::Hardware(7)),
            Event::labelled(&STALLED_CYCLES, "stage", "backend", Code::Hardware(8)),
        ],
        EventSet::DramLoads => dram_loads(model),
        EventSet::Topdown => topdown(pmus),
    }
}

/// The set's name in the configuration.
pub(crate) fn set_name(set: EventSet) -> &'static str {
    match set {
        EventSet::Branches => "branches",
        EventSet::Dtlb => "dtlb",
        EventSet::Stalled => "stalled",
        EventSet::DramLoads => "dram_loads",
        EventSet::Topdown => "topdown",
    }
}

/// Loads served by local and remote DRAM, if the events of the CPU model are known.
///
/// Intel: `MEM_LOAD_L3_MISS_RETIRED.LOCAL_DRAM` and `.REMOTE_DRAM`, event 0xd3, umask 0x01 and
/// 0x02, identical in github.com/intel/perfmon {SKX,CLX,ICX,SPR,EMR,GNR}/events/*_core.json (and
/// tools/perf/pmu-events/arch/x86/{skylakex,cascadelakex,icelakex,sapphirerapids}/cache.json).
///
/// AMD: demand data cache fills by source, event 0x43, umask 0x08 (DRAM or I/O of the same node)
/// and 0x40 (of another node): `ls_refills_from_sys.ls_mabresp_{lcl,rmt}_dram` in
/// tools/perf/pmu-events/arch/x86/amdzen2/memory.json,
/// `ls_dmnd_fills_from_sys.mem_io_{local,remote}` in amdzen3/memory.json,
/// `ls_dmnd_fills_from_sys.dram_io_{near,far}` in amdzen4/cache.json and amdzen5/load-store.json.
fn dram_loads(model: &CpuModel) -> Vec<Event> {
    let CpuModel::X86 {
        vendor,
        family,
        model,
        ..
    } = *model
    else {
        return Vec::new();
    };
    let (local, remote) = match vendor {
        X86Vendor::Intel if family == 6 && is_xeon(model) => (0x01d3, 0x02d3),
        X86Vendor::Amd if is_zen2_to_5(family, model) => (0x0843, 0x4043),
        _ => return Vec::new(),
    };
    vec![
        Event::labelled(&DRAM_LOADS, "target", "local", Code::Raw(local)),
        Event::labelled(&DRAM_LOADS, "target", "remote", Code::Raw(remote)),
    ]
}

/// Xeon models in github.com/intel/perfmon mapfile.csv: Skylake-SP and Cascade Lake (0x55), Ice
/// Lake-SP (0x6a, 0x6c), Sapphire Rapids (0x8f), Emerald Rapids (0xcf), Granite Rapids (0xad,
/// 0xae).
fn is_xeon(model: u32) -> bool {
    matches!(model, 0x55 | 0x6a | 0x6c | 0x8f | 0xcf | 0xad | 0xae)
}

/// Families and models in tools/perf/pmu-events/arch/x86/mapfile.csv: 0x17 from model 0x30 is Zen
/// 2, 0x19 is Zen 3 and 4. In family 0x1a, Zen 5 has the models that arch/x86/kernel/cpu/amd.c
/// (`bsp_init_amd`) does not assign to Zen 6.
fn is_zen2_to_5(family: u32, model: u32) -> bool {
    match family {
        0x17 => model >= 0x30,
        0x19 => true,
        0x1a => matches!(model >> 4, 0 | 1 | 2 | 4 | 6 | 7),
        _ => false,
    }
}

/// Issue slots by use, if all cores have the topdown metrics of Ice Lake and later
/// (arch/x86/events/intel/core.c, `icl_td_events_attrs`): `slots` must lead the group, and the
/// kernel converts the metrics to slots. An older `topdown-retiring` without `slots` counts
/// differently and is not used.
///
/// The metrics have no counters of their own that VM entry could switch: their split by mode is
/// only as exact as that of `slots` (SDM vol. 3, "Performance Metrics").
fn topdown(pmus: &[Pmu]) -> Vec<Event> {
    const CATEGORIES: [(&str, &str); 5] = [
        ("slots", "total"),
        ("topdown-retiring", "retiring"),
        ("topdown-bad-spec", "bad_speculation"),
        ("topdown-fe-bound", "frontend_bound"),
        ("topdown-be-bound", "backend_bound"),
    ];
    // On a hybrid machine only some cores have these events, and a sum would miss the others.
    let [pmu] = pmus else {
        return Vec::new();
    };
    let event = |(name, category): (&str, &str)| {
        let code = Code::Pmu(pmu.encode(name).ok()?);
        let event = Event::labelled(&TOPDOWN_SLOTS, "category", category, code);
        pmu.has_event(name).then_some(event)
    };
    let events: Option<Vec<Event>> = CATEGORIES.into_iter().map(event).collect();
    events.unwrap_or_default()
}

/// Software events of the kernel, for machines without a PMU: `perf_sw_ids`.
pub(crate) fn software() -> Vec<(&'static str, Attr)> {
    [
        ("context-switches", 3),
        ("cpu-migrations", 4),
        ("page-faults", 2),
    ]
    .map(|(name, config)| (name, attr(PERF_TYPE_SOFTWARE, config)))
    .to_vec()
}

/// The attributes of an event: one, or one for each type of core.
///
/// With one core PMU the generic types suffice; with several, the upper half of `config` holds
/// each PMU's number (Documentation/admin-guide/perf-intel-hybrid.rst).
pub(crate) fn attrs(code: Code, mode: Mode, pmus: &[Pmu]) -> Vec<Attr> {
    let plain = match code {
        Code::Hardware(id) => attr(PERF_TYPE_HARDWARE, id),
        Code::Cache(id) => attr(PERF_TYPE_HW_CACHE, id),
        Code::Raw(config) => attr(pmus.first().map_or(PERF_TYPE_RAW, |pmu| pmu.kind), config),
        Code::Pmu(Encoding { kind, words }) => Attr {
            words,
            ..attr(kind, 0)
        },
    };
    let plain = Attr {
        exclude_host: mode == Mode::Guest,
        exclude_guest: mode == Mode::Host,
        ..plain
    };
    match code {
        Code::Hardware(id) | Code::Cache(id) if pmus.len() > 1 => pmus
            .iter()
            .map(|pmu| Attr {
                words: [id | u64::from(pmu.kind) << PERF_PMU_TYPE_SHIFT, 0, 0, 0],
                ..plain
            })
            .collect(),
        _ => vec![plain],
    }
}

/// A tracepoint by its number, in both modes: only the kernel hits it.
pub(crate) fn tracepoint(id: u64, filter: Option<Filter>) -> Attr {
    Attr {
        filter,
        ..attr(PERF_TYPE_TRACEPOINT, id)
    }
}

fn attr(kind: u32, config: u64) -> Attr {
    Attr {
        kind,
        words: [config, 0, 0, 0],
        exclude_host: false,
        exclude_guest: false,
        filter: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x86(vendor: X86Vendor, family: u32, model: u32) -> CpuModel {
        CpuModel::X86 {
            vendor,
            family,
            model,
            stepping: 0,
        }
    }

    fn configs(model: CpuModel) -> Vec<Code> {
        let events = optional(EventSet::DramLoads, &model, &[]);
        events.into_iter().map(|event| event.code).collect()
    }

    #[test]
    fn dram_loads_are_known_by_model() {
        let intel = vec![Code::Raw(0x1d3), Code::Raw(0x2d3)];
        for model in [0x55, 0x6a, 0x6c, 0x8f, 0xcf] {
            assert_eq!(configs(x86(X86Vendor::Intel, 6, model)), intel, "{model:x}");
        }
        let amd = vec![Code::Raw(0x843), Code::Raw(0x4043)];
        for (family, model) in [(0x17, 0x31), (0x19, 0x01), (0x19, 0x11), (0x1a, 0x02)] {
            assert_eq!(
                configs(x86(X86Vendor::Amd, family, model)),
                amd,
                "{family:x}"
            );
        }
    }

    #[test]
    fn other_models_have_no_dram_loads() {
        for model in [
            x86(X86Vendor::Intel, 6, 0x9e),
            x86(X86Vendor::Amd, 0x17, 0x01),
            x86(X86Vendor::Amd, 0x1a, 0x50),
            CpuModel::Unknown,
        ] {
            assert_eq!(configs(model), [], "{model:?}");
        }
    }

    #[test]
    fn every_metric_has_the_labels_of_its_events() {
        let sets = [
            EventSet::Branches,
            EventSet::Dtlb,
            EventSet::Stalled,
            EventSet::DramLoads,
        ];
        let model = x86(X86Vendor::Intel, 6, 0x8f);
        let optional = sets.iter().flat_map(|set| optional(*set, &model, &[]));
        for event in base(Mode::Guest).into_iter().chain(optional) {
            let labels = event.label.iter().map(|(name, _)| name).chain([&"mode"]);
            for label in labels {
                assert!(
                    event.metric.own_labels.contains(label),
                    "{} {label}",
                    event.metric
                );
            }
        }
    }
}
