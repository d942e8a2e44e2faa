//! Decides what is counted on this machine: a pure function of the configuration, facts about
//! the machine, and the kernel's answers to a probe.

use std::collections::HashSet;

use crate::config;
use crate::host::cpu_model::CpuModel;
use crate::host::pmu::{self, Encoding, Pmu};
use crate::host::roots::Roots;
use crate::sample::Reason;

use super::counters::Attr;
use super::denied::Gate;
use super::events::{self, Code, Event, Side};
use super::probe::Kernel;

mod mode;
mod pack;

pub(super) use mode::mediated;
pub(in crate::sample) use mode::{permission_fix, pid_namespace, SHARE_PID_NAMESPACE};

/// What hardware counting this host allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Guest and host apart.
    Full,
    /// The guest cannot be counted, the host side can.
    HostOnly,
    /// No PMU: the kernel's software events only.
    Software,
    /// Nothing.
    Off,
}

impl Mode {
    /// Value of the `mode` label of `kvm_exporter_pmu_mode`.
    pub fn label(self) -> &'static str {
        match self {
            Mode::Full => "full",
            Mode::HostOnly => "host_only",
            Mode::Software => "software",
            Mode::Off => "off",
        }
    }
}

/// What is known of the machine before the kernel is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// PMUs of the cores: one, or one for each kind of core.
    pub pmus: Vec<Pmu>,
    /// CPU model.
    pub model: CpuModel,
    /// Whether the NMI watchdog holds a counter on every CPU (`kernel.nmi_watchdog`).
    pub nmi_watchdog: bool,
    /// The KVM module whose mediated vPMU is on: `kvm_intel` or `kvm_amd`.
    pub mediated_vpmu: Option<&'static str>,
    /// What stands before perf_event_open.
    pub gate: Gate,
    /// The exporter's own pid in its procfs root, where that is another than it knows itself by.
    pub foreign_pid: Option<u32>,
    /// The configuration's raw events, in its order, encoded or refused.
    pub raw: Vec<Result<Encoding, String>>,
}

impl Machine {
    /// Reads the facts below `roots`; what cannot be read is taken for absent.
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

/// With a mediated vPMU the guest owns the counters while it runs. While any event counts guests,
/// the first vCPU of a VM cannot be created (EBUSY); while such a VM exists, no event that counts
/// guests can be opened (EOPNOTSUPP). kernel/events/core.c, `perf_create_mediated_pmu` and
/// `mediated_pmu_account_event`.
pub(super) fn mediated_vpmu(roots: &Roots) -> Option<&'static str> {
    ["kvm_intel", "kvm_amd"].into_iter().find(|module| {
        let file = format!("module/{module}/parameters/enable_mediated_pmu");
        let text = roots.read_text(&roots.sys.join(file));
        matches!(text.as_deref(), Ok("Y" | "1"))
    })
}

/// `/proc/self` names the reader as the procfs mount's PID namespace knows it (pid_namespaces(7)),
/// and perf_event_open takes thread ids of the caller's: with a host's /proc mounted into a
/// container that has a PID namespace of its own, every id there means another thread, or none.
pub(in crate::sample) fn foreign_pid(roots: &Roots) -> Option<u32> {
    let own = std::fs::read_link(roots.proc.join("self")).ok()?;
    let own = own.to_str()?.parse().ok()?;
    (own != std::process::id()).then_some(own)
}

/// What is counted for each vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What the host allows.
    pub mode: Mode,
    /// Why it is not [`Mode::Full`].
    pub reason: Option<Reason>,
    /// The groups, in the order they are opened.
    pub groups: Vec<GroupPlan>,
    /// What the configuration asks for and this machine cannot count, with the reason.
    pub missing: Vec<String>,
}

/// One group of counters, that count at the same time and are read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// Value of the `group` label.
    pub name: String,
    /// What its events feed.
    pub feeds: Vec<Feed>,
    /// The events' attributes, in the order of `feeds`: once, or once for each kind of core.
    pub parts: Vec<Vec<Attr>>,
    /// Whether counts are scaled to the time enabled. Not so for a user's event that only some
    /// of the cores can count: there the time not running is mostly time on other cores.
    pub scaled: bool,
}

/// The column that an event feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Metric of the catalogue.
    pub metric: &'static str,
    /// Labels beyond vm, vcpu and place.
    pub labels: Vec<(&'static str, String)>,
}

/// Events that only make sense in one group, and that are left out or counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bundle {
    name: String,
    /// The one PMU that counts it, on a machine with several kinds of core (`PERF_TYPE_RAW` is
    /// the number of the performance cores' PMU there).
    only_on: Option<u32>,
    /// Must not be joined with others: its first event must lead the group.
    alone: bool,
    /// Feed and attributes, once or for each kind of core.
    events: Vec<(Feed, Vec<Attr>)>,
}

/// Plans what is counted.
pub fn plan(config: &config::Pmu, machine: &Machine, kernel: &dyn Kernel) -> Plan {
    let (mode, reason) = mode::decide(config, machine, kernel);
    let mut missing = Vec::new();
    let groups = match mode {
        Mode::Full => hardware(
            config,
            machine,
            kernel,
            &[Side::Guest, Side::Host],
            &mut missing,
        ),
        Mode::HostOnly => hardware(config, machine, kernel, &[Side::Host], &mut missing),
        Mode::Software => vec![software()],
        Mode::Off => Vec::new(),
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
    sides: &[Side],
    missing: &mut Vec<String>,
) -> Vec<GroupPlan> {
    let wanted = |side: &&Side| **side == Side::Guest || config.host_mode;
    let sides: Vec<Side> = sides.iter().filter(wanted).copied().collect();
    let base: Vec<Bundle> = sides
        .iter()
        .map(|side| {
            let base = bundle(side.label(), *side, events::base(*side), machine);
            supported(base, kernel, missing)
        })
        .collect();
    let mut further = optional(config, machine, &sides, missing);
    further.extend(raw(config, machine, &sides, missing));
    further.retain(|bundle| match opens(bundle, kernel) {
        Ok(()) => true,
        Err(errno) => {
            missing.push(format!(
                "{}: refused by the kernel ({})",
                bundle.name,
                errno_text(errno)
            ));
            false
        }
    });
    // What must be alone comes last, so that the others find a group to join.
    further.sort_by_key(|bundle| bundle.alone);
    pack::groups(base, further, machine, kernel)
}

/// Default events whose absence is worth a word: nothing else tells how fast a guest runs. Virtual
/// PMUs may lack one of them.
const ESSENTIAL: [&str; 2] = ["kvm_vcpu_cycles_total", "kvm_vcpu_instructions_total"];

/// Drops the default events that this CPU lacks; ref-cycles for one, on many AMD and ARM cores.
fn supported(mut bundle: Bundle, kernel: &dyn Kernel, missing: &mut Vec<String>) -> Bundle {
    let side = &bundle.name;
    bundle.events.retain(|(feed, attrs)| {
        let refused = attrs.iter().find_map(|attr| kernel.opens(&[*attr]).err());
        if let (Some(errno), true) = (refused, ESSENTIAL.contains(&feed.metric)) {
            let reason = errno_text(errno);
            missing.push(format!(
                "{} of the {side}: this PMU lacks the event ({reason})",
                feed.metric
            ));
        }
        refused.is_none()
    });
    bundle
}

fn opens(bundle: &Bundle, kernel: &dyn Kernel) -> Result<(), i32> {
    bundle
        .parts()
        .iter()
        .try_for_each(|part| kernel.opens(part))
}

fn optional(
    config: &config::Pmu,
    machine: &Machine,
    sides: &[Side],
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
        bundles.extend(sides.iter().map(|side| {
            let name = format!("{name}_{}", side.label());
            Bundle {
                alone: *set == config::EventSet::Topdown,
                ..bundle(&name, *side, events.clone(), machine)
            }
        }));
    }
    bundles
}

fn raw(
    config: &config::Pmu,
    machine: &Machine,
    sides: &[Side],
    missing: &mut Vec<String>,
) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    let mut seen = HashSet::new();
    for (raw, encoding) in config.raw.iter().zip(&machine.raw) {
        // Two columns of the same labels would be the same series twice.
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
            metric: "kvm_vcpu_pmu_event_total",
            label: Some(("event", raw.name.clone())),
            code: Code::Pmu(encoding),
        };
        let wanted = |side: &&Side| match side {
            Side::Guest => raw.guest,
            Side::Host => raw.host,
        };
        bundles.extend(sides.iter().filter(wanted).map(|side| {
            let name = format!("{}_{}", raw.name, side.label());
            Bundle {
                only_on: machine.is_hybrid().then_some(encoding.kind),
                ..bundle(&name, *side, vec![event.clone()], machine)
            }
        }));
    }
    bundles
}

fn bundle(name: &str, side: Side, events: Vec<Event>, machine: &Machine) -> Bundle {
    let events = events.into_iter().map(|event| {
        let mode = ("mode", side.label().to_owned());
        let feed = Feed {
            metric: event.metric,
            labels: std::iter::once(mode).chain(event.label).collect(),
        };
        (feed, events::attrs(event.code, side, &machine.pmus))
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
                metric: "kvm_vcpu_software_event_total",
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
    /// Attributes by kind of core.
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
