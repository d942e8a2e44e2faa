//! A scenario: the VMs of a synthetic host, and their troubles.
//!
//! [`Scenario::load`] takes the name of an embedded scenario or a path. A [`Scenario`] is always
//! valid: every VM that it names exists, numbers are in range, sizes are bounded.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::raw::{RawExpect, RawScenario};
use crate::config::parse_named;
use crate::config::values::{duration, show_duration};

mod load;
mod troubles;

use load::{add_vms, raw, with_base};

pub(super) use super::raw::{Names, Pin, Workload};

/// Embedded scenarios: name and text.
pub const EMBEDDED: [(&str, &str); 3] = [
    ("calm", include_str!("../../../deploy/scenarios/calm.yaml")),
    (
        "troubles",
        include_str!("../../../deploy/scenarios/troubles.yaml"),
    ),
    (
        "incident",
        include_str!("../../../deploy/scenarios/incident.yaml"),
    ),
];

/// A number for each CPU.
pub(super) type PerCpu = [f64; CPUS as usize];

/// Logical CPUs of the host: two packages of 28 cores with two threads each.
pub(super) const CPUS: u32 = 112;
/// Cores of each package.
pub(super) const CORES: u32 = 28;
/// Number of cores: the second thread of CPU n is n + this.
pub(super) const FIRSTS: u32 = 2 * CORES;

/// Limits of a scenario: VMs, vCPUs of all VMs together, and troubles.
const MOST_VMS: usize = 512;
const MOST_VCPUS: u32 = 4096;
const MOST_TROUBLES: usize = 256;
/// Longest name in bytes, the limit of the label.
const MOST_NAME: usize = 128;

/// A valid scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The argument of `demo --synthetic`.
    pub name: String,
    pub(crate) about: String,
    /// A memory-only node: node 2.
    pub(super) memory_node: Option<MemoryNode>,
    /// In the order of the file; [`Trouble::vms`] are indices into it.
    pub vms: Vec<VmSpec>,
    /// Troubles, by start.
    pub troubles: Vec<Trouble>,
}

/// A node with memory and without CPUs, such as CXL memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryNode {
    pub(super) bytes: u64,
    /// Package that it is attached to, and nearer to.
    pub(super) package: u32,
}

/// Most NUMA nodes: one for each package, and one memory-only node.
pub(super) const NODES: usize = 3;

/// A VM of the host, and its load.
#[derive(Debug, Clone, PartialEq)]
pub struct VmSpec {
    /// Name in the scenario, and nova's display name.
    pub name: String,
    /// libvirt's name.
    pub domain: String,
    pub(super) flavor: String,
    pub(super) workload: Workload,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Share of its memory on each node.
    pub(super) memory_on: [f64; NODES],
    /// CPUs it may use.
    pub(super) cpus: Vec<u32>,
    pub(super) pin: Pin,
    /// CPU quota in cores.
    pub(super) quota: Option<f64>,
    /// Whether it has a GPU by VFIO.
    pub(super) device: bool,
    pub(super) iothread: bool,
    pub(super) starts: Duration,
    pub(super) ends: Option<Duration>,
}

impl VmSpec {
    /// Share of its memory on each node; `is_far`: after most of it was moved to the other package.
    pub(super) fn memory_shares(&self, is_far: bool) -> [f64; NODES] {
        let [a, b, c] = self.memory_on;
        // 2 % stay.
        let moved = |own, other| 0.02 * own + 0.98 * other;
        if is_far {
            [moved(a, b), moved(b, a), c]
        } else {
            self.memory_on
        }
    }

    /// The node where its vCPUs start.
    pub(super) fn node(&self) -> u32 {
        self.cpus.first().map_or(0, |cpu| node_of(*cpu))
    }

    pub(super) fn runs(&self, at: Duration) -> bool {
        self.starts <= at && self.ends.is_none_or(|end| at < end)
    }
}

/// A trouble on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// Key of its kind in the file.
    pub name: String,
    /// VMs that it slows down, as indices into [`Scenario::vms`].
    pub vms: Vec<usize>,
    pub(super) effects: Vec<Effect>,
    /// Time from the start of the scenario.
    pub start: Duration,
    /// Its duration.
    pub length: Duration,
    /// All alerts that it causes.
    pub expect: Vec<Expect>,
}

/// An alert that a trouble causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The alert's name.
    pub alert: String,
    /// Labels that it has, among others.
    pub labels: BTreeMap<String, String>,
    /// Most time from the start of the trouble until the alert fires.
    pub within: Duration,
}

/// What a trouble changes: fields of `Influence` and `VmInfluence` (timeline.rs), which say what each
/// means. VMs are indices into [`Scenario::vms`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Demand(usize, f64),
    DemandOf(usize, u32, f64),
    Cpi(usize, f64),
    Misses(usize, f64),
    Exits(usize, f64),
    MemoryFar(usize),
    DeviceFar(usize),
    Cpus(usize, Vec<u32>),
    Iothread(usize, u32, f64),
    /// Package and share.
    Throttled(u32, f64),
    Running(f64),
    Processes(Vec<u32>, f64),
}

impl Trouble {
    pub(super) fn is_on(&self, at: Duration) -> bool {
        self.start <= at && at < self.end()
    }

    /// The time of its end.
    pub fn end(&self) -> Duration {
        self.start + self.length
    }
}

/// Node and package of a CPU.
pub(super) fn node_of(cpu: u32) -> u32 {
    cpu % FIRSTS / CORES
}

impl Scenario {
    /// Loads the embedded scenario of this name, else the file at this path.
    ///
    /// # Errors
    /// If the scenario is invalid; the message says where, and what was expected.
    pub fn load(name: &str) -> anyhow::Result<Self> {
        let raw = raw(name, Path::new(""), 0)?;
        let stem = Path::new(name)
            .file_stem()
            .map(|stem| stem.to_string_lossy());
        let name = stem.map_or_else(|| name.to_owned(), |stem| clip(&stem));
        Self::from_raw(raw, &name).map_err(|what| anyhow!("scenario {name}: {what}"))
    }

    /// Parses a scenario.
    ///
    /// # Errors
    /// See [`Scenario::load`].
    pub fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let raw = with_base(parse_named(text, Path::new(name))?, Path::new(""), 0)?;
        Self::from_raw(raw, name).map_err(|what| anyhow!("scenario {name}: {what}"))
    }

    /// Number of NUMA nodes of the host.
    pub(super) fn nodes(&self) -> usize {
        NODES - usize::from(self.memory_node.is_none())
    }

    fn from_raw(raw: RawScenario, name: &str) -> Result<Self, String> {
        let mut vms = Vec::new();
        let memory_node = raw.memory_node.map(load::memory_node).transpose()?;
        for vm in &raw.vms {
            add_vms(&mut vms, vm, &raw.workloads)?;
        }
        load::fit_memory(&vms, memory_node)?;
        load::name_domains(&mut vms, raw.names.unwrap_or_default());
        bound("VMs", vms.len(), MOST_VMS)?;
        let vcpus: u32 = vms.iter().map(|vm| vm.vcpus).sum();
        bound(
            "vCPUs of all VMs together",
            vcpus as usize,
            MOST_VCPUS as usize,
        )?;
        let mut names = HashSet::new();
        if let Some(twice) = vms.iter().find(|vm| !names.insert(&vm.name)) {
            return Err(format!("two VMs are named {:?}", twice.name));
        }
        bound("troubles", raw.troubles.len(), MOST_TROUBLES)?;
        let troubles = raw.troubles.iter().map(|raw| {
            let trouble = troubles::read(raw, &vms);
            trouble.map_err(|what| format!("trouble {:?}: {what}", clip(&raw.name)))
        });
        let mut troubles = troubles.collect::<Result<Vec<_>, _>>()?;
        troubles.sort_by_key(|trouble| trouble.start);
        Ok(Self {
            name: name.to_owned(),
            about: raw.about,
            memory_node,
            vms,
            troubles,
        })
    }
}

/// A CPU list of the host: `0-3,56`.
pub(super) fn cpus(text: &str) -> Result<Vec<u32>, String> {
    let expected = || {
        format!(
            "cpus: expected CPUs of 0 to {}, such as 0-3,56-59, found {:?}",
            CPUS - 1,
            clip(text)
        )
    };
    let mut all = Vec::new();
    for part in text.split(',').take(CPUS as usize) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| expected());
        let (from, to) = (number(from)?, number(to)?);
        if from > to || to >= CPUS {
            return Err(expected());
        }
        all.extend(from..=to);
    }
    let mut seen = HashSet::new();
    all.retain(|cpu| seen.insert(*cpu));
    Ok(all)
}

/// The label `vm` has the scenario's name of a VM; alerts have libvirt's.
pub(super) fn expects(raw: &[RawExpect], vms: &[VmSpec]) -> Result<Vec<Expect>, String> {
    let one = |raw: &RawExpect| {
        let mut labels = raw.labels.clone();
        if let Some(name) = labels.get_mut("vm") {
            let vm = vms.iter().find(|vm| vm.name == *name);
            let vm = vm.ok_or_else(|| format!("expect: no VM named {:?}", clip(name)))?;
            name.clone_from(&vm.domain);
        }
        Ok(Expect {
            alert: raw.alert.clone(),
            labels,
            within: time(&raw.within)?,
        })
    };
    raw.iter().map(one).collect()
}

/// Parses a duration of the scenario.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(366 * 86_400);
    let found = duration(text).filter(|time| *time <= MOST);
    found.ok_or_else(|| {
        format!(
            "expected a time such as 90s, 10m or 2h, at most {}, found {:?}",
            show_duration(MOST),
            clip(text)
        )
    })
}

pub(super) fn number(name: &str, n: f64, least: f64, most: f64) -> Result<f64, String> {
    if (least..=most).contains(&n) {
        Ok(n)
    } else {
        Err(format!("{name}: expected {least} to {most}, found {n}"))
    }
}

fn bound(what: &str, n: usize, most: usize) -> Result<(), String> {
    if n <= most {
        Ok(())
    } else {
        Err(format!("{what}: expected at most {most}, found {n}"))
    }
}

/// Shortens a text for a message or a label.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
