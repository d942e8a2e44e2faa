//! Decides what this machine counts: a pure function of the configuration, facts about the
//! machine, and the kernel's answers to a probe.

use std::collections::HashSet;

use crate::config;
use crate::engine::Reason;
use crate::host::cpu_model::CpuModel;
use crate::host::label::label_values;
use crate::host::pmu::{self, Encoding, Pmu};
use crate::host::roots::Roots;
use crate::metric::Metric;

use super::counters::Attr;
use super::denied::Gate;
use super::events::{self, Code, Event, Mode};
use super::metrics::{CYCLES, INSTRUCTIONS, PMU_EVENT, SOFTWARE_EVENT};
use super::probe::Kernel;

mod mode;
mod pack;

pub(super) use mode::mediated;
pub(in crate::sources) use mode::pid_namespace;

label_values! {
    /// The hardware counting that this host allows: the `mode` label of `kvm_exporter_pmu_mode`.
    pub(crate) enum PmuMode {
        /// Guest and host mode separately.
        Full = "full",
        /// Host mode only; guest mode cannot be counted.
        HostOnly = "host_only",
        /// No PMU: only the kernel's software events.
        Software = "software",
        /// Nothing is counted.
        Off = "off",
    }
}

/// Facts about the machine, read before the kernel is probed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// PMUs of the cores: one, or one for each type of core.
    pub pmus: Vec<Pmu>,
    /// CPU model.
    pub model: CpuModel,
    /// Whether the NMI watchdog uses a counter on every CPU (`kernel.nmi_watchdog`).
    pub nmi_watchdog: bool,
    /// The KVM module with an active mediated vPMU: `kvm_intel` or `kvm_amd`.
    pub mediated_vpmu: Option<&'static str>,
    /// What may block perf_event_open.
    pub(crate) gate: Gate,
    /// The exporter's own PID in the procfs root, if it differs from getpid(2).
    pub(crate) foreign_pid: Option<u32>,
    /// The configuration's raw events, in order: the encoding, or why there is none.
    pub raw: Vec<Result<Encoding, String>>,
}

impl Machine {
    /// Reads the facts below `roots`; facts that cannot be read count as absent.
    pub fn read(roots: &Roots, model: &CpuModel, config: &config::Pmu) -> Self {
        let number = |file: &str| -> Option<i32> {
            let path = roots.proc.join("sys/kernel").join(file);
            roots.read_text(&path).ok()?.trim().parse().ok()
        };
        let raw = |raw: &config::RawEvent| {
            pmu::resolve(roots, &raw.event).map_err(|error| error.to_string())
        };
        Self {
            pmus: pmu::core_pmus(roots),
            model: *model,
            nmi_watchdog: number("nmi_watchdog") == Some(1),
            mediated_vpmu: mediated_vpmu(roots),
            gate: Gate::read(roots),
            foreign_pid: foreign_pid(roots),
            raw: config.raw.iter().map(raw).collect(),
        }
    }

    fn is_hybrid(&self) -> bool {
        self.pmus.len() > 1
    }
}

/// The KVM module with a mediated vPMU: a running guest then owns the counters. While any event
/// counts guests, the first vCPU of a VM cannot be created (EBUSY); while such a VM exists, no
/// event that counts guests can be opened (EOPNOTSUPP). See kernel/events/core.c,
/// `perf_create_mediated_pmu` and `mediated_pmu_account_event`.
pub(super) fn mediated_vpmu(roots: &Roots) -> Option<&'static str> {
    ["kvm_intel", "kvm_amd"].into_iter().find(|module| {
        let file = format!("module/{module}/parameters/enable_mediated_pmu");
        let text = roots.read_text(&roots.sys.join(file));
        matches!(text.as_deref(), Ok("Y" | "1"))
    })
}

/// The PID of `/proc/self` if it differs from the exporter's own. `/proc/self` has the reader's
/// PID in the PID namespace of the procfs mount (pid_namespaces(7)), but perf_event_open takes
/// thread IDs of the caller's namespace: with a host's /proc mounted into a container with its own
/// PID namespace, every ID in it means another thread, or none.
pub(in crate::sources) fn foreign_pid(roots: &Roots) -> Option<u32> {
    let own = std::fs::read_link(roots.proc.join("self")).ok()?;
    let own = own.to_str()?.parse().ok()?;
    (own != std::process::id()).then_some(own)
}

/// The counter groups of each vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The hardware counting that this host allows.
    pub(crate) mode: PmuMode,
    /// Why the mode is not `PmuMode::Full`.
    pub reason: Option<Reason>,
    /// The groups, in the order of opening.
    pub groups: Vec<GroupPlan>,
    /// Configured events that this machine cannot count, with the reason.
    pub missing: Vec<String>,
}

/// A group of counters that count at the same time and are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// Value of the `group` label.
    pub name: String,
    /// The column of each event.
    pub feeds: Vec<Feed>,
    /// Attributes of the events, in the order of `feeds`: once, or once for each type of core.
    pub parts: Vec<Vec<Attr>>,
    /// Whether counts are scaled to the enabled time. Not for a user-defined event that only some
    /// of the cores can count: there the time not running is mostly time on other cores.
    pub scaled: bool,
}

/// The column that an event feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The family of the column.
    pub metric: &'static Metric,
    /// Labels besides vm, vcpu and location.
    pub labels: Vec<(&'static str, String)>,
}

/// Events that must be in one group and are counted or dropped together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bundle {
    name: String,
    /// The only PMU that counts it, on a machine with several types of core (there `PERF_TYPE_RAW`
    /// is the number of the performance cores' PMU).
    only_on: Option<u32>,
    /// Cannot be merged with others: its first event must lead the group.
    alone: bool,
    /// Feed and attributes, once or once for each type of core.
    events: Vec<(Feed, Vec<Attr>)>,
}

/// Plans the counter groups.
pub fn plan(config: &config::Pmu, machine: &Machine, kernel: &dyn Kernel) -> Plan {
    let (mode, reason) = mode::decide(config, machine, kernel);
    let mut missing = Vec::new();
    let groups = match mode {
        PmuMode::Full => hardware(config, machine, kernel, &Mode::ALL, &mut missing),
        PmuMode::HostOnly => hardware(config, machine, kernel, &[Mode::Host], &mut missing),
        PmuMode::Software => vec![software()],
        PmuMode::Off => Vec::new(),
    };
    Plan {
        mode,
        reason,
        groups,
        missing,
    }
}

fn hardware(
    config: &config::Pmu,
    machine: &Machine,
    kernel: &dyn Kernel,
    modes: &[Mode],
    missing: &mut Vec<String>,
) -> Vec<GroupPlan> {
    let wanted = |mode: &&Mode| **mode == Mode::Guest || config.host_mode;
    let modes: Vec<Mode> = modes.iter().filter(wanted).copied().collect();
    let mut base = |mode: &Mode| {
        let base = bundle(mode.label(), *mode, events::base(*mode), machine);
        supported(base, kernel, missing)
    };
    let base: Vec<Bundle> = modes.iter().map(&mut base).collect();
    let mut further = optional(config, machine, &modes, missing);
    further.extend(raw(config, machine, &modes, missing));
    further.retain(|bundle| match opens(bundle, kernel) {
        Ok(()) => true,
        Err(errno) => {
            let (name, reason) = (&bundle.name, errno_text(errno));
            missing.push(format!("{name}: refused by the kernel ({reason})"));
            false
        }
    });
    // Bundles that must be alone come last, so that the others find a group to join.
    further.sort_by_key(|bundle| bundle.alone);
    pack::groups(base, further, machine, kernel)
}

/// Default events that are reported if missing: only they show how fast a guest runs. Virtual PMUs
/// may lack one of them.
const ESSENTIAL: [&Metric; 2] = [&CYCLES, &INSTRUCTIONS];

/// Drops the default events that this CPU lacks, such as ref-cycles on many AMD and ARM cores.
fn supported(mut bundle: Bundle, kernel: &dyn Kernel, missing: &mut Vec<String>) -> Bundle {
    let mode = &bundle.name;
    bundle.events.retain(|(feed, attrs)| {
        let refused = attrs.iter().find_map(|attr| kernel.opens(&[*attr]).err());
        if let (Some(errno), true) = (refused, ESSENTIAL.contains(&feed.metric)) {
            let reason = errno_text(errno);
            missing.push(format!(
                "{} in {mode} mode: this PMU lacks the event ({reason})",
                feed.metric
            ));
        }
        refused.is_none()
    });
    bundle
}

fn opens(bundle: &Bundle, kernel: &dyn Kernel) -> Result<(), i32> {
    let parts = bundle.parts();
    parts.iter().try_for_each(|part| kernel.opens(part))
}

fn optional(
    config: &config::Pmu,
    machine: &Machine,
    modes: &[Mode],
    missing: &mut Vec<String>,
) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    let mut seen = HashSet::new();
    for set in config.events.iter().filter(|set| seen.insert(**set)) {
        let events = events::optional(*set, &machine.model, &machine.pmus);
        let name = events::set_name(*set);
        if events.is_empty() {
            missing.push(format!("{name}: not known for this CPU"));
            continue;
        }
        bundles.extend(modes.iter().map(|mode| {
            let name = format!("{name}_{}", mode.label());
            Bundle {
                alone: *set == config::EventSet::Topdown,
                ..bundle(&name, *mode, events.clone(), machine)
            }
        }));
    }
    bundles
}

fn raw(
    config: &config::Pmu,
    machine: &Machine,
    modes: &[Mode],
    missing: &mut Vec<String>,
) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    let mut seen = HashSet::new();
    for (raw, encoding) in config.raw.iter().zip(&machine.raw) {
        // Two columns with the same labels would be a duplicate series.
        if !seen.insert(&raw.name) {
            missing.push(format!("{}: the name is used twice", raw.name));
            continue;
        }
        let encoding = match encoding {
            Ok(encoding) => *encoding,
            Err(error) => {
                missing.push(format!("{}: {error}", raw.name));
                continue;
            }
        };
        let event = Event {
            metric: &PMU_EVENT,
            label: Some(("event", raw.name.clone())),
            code: Code::Pmu(encoding),
        };
        let wanted = |mode: &&Mode| match mode {
            Mode::Guest => raw.guest,
            Mode::Host => raw.host,
        };
        bundles.extend(modes.iter().filter(wanted).map(|mode| {
            let name = format!("{}_{}", raw.name, mode.label());
            Bundle {
                only_on: machine.is_hybrid().then_some(encoding.kind),
                ..bundle(&name, *mode, vec![event.clone()], machine)
            }
        }));
    }
    bundles
}

fn bundle(name: &str, mode: Mode, events: Vec<Event>, machine: &Machine) -> Bundle {
    let events = events.into_iter().map(|event| {
        let label = ("mode", mode.label().to_owned());
        let feed = Feed {
            metric: event.metric,
            labels: std::iter::once(label).chain(event.label).collect(),
        };
        (feed, events::attrs(event.code, mode, &machine.pmus))
    });
    Bundle {
        name: name.to_owned(),
        only_on: None,
        alone: false,
        events: events.collect(),
    }
}

fn software() -> GroupPlan {
    let (feeds, attrs) = events::software()
        .into_iter()
        .map(|(name, attr)| {
            let feed = Feed {
                metric: &SOFTWARE_EVENT,
                labels: vec![("event", name.to_owned())],
            };
            (feed, attr)
        })
        .unzip();
    GroupPlan {
        name: "software".to_owned(),
        feeds,
        parts: vec![attrs],
        scaled: true,
    }
}

impl Bundle {
    /// Attributes for each type of core.
    fn parts(&self) -> Vec<Vec<Attr>> {
        let parts = self.events.first().map_or(0, |(_, attrs)| attrs.len());
        (0..parts)
            .map(|part| {
                let attrs = self.events.iter().filter_map(|(_, attrs)| attrs.get(part));
                attrs.copied().collect()
            })
            .collect()
    }
}

fn errno_text(errno: i32) -> String {
    match errno {
        0 => "no reason given".to_owned(),
        errno => std::io::Error::from_raw_os_error(errno).to_string(),
    }
}

#[cfg(test)]
mod tests;
