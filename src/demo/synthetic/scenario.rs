//! A scenario: the VMs of a synthetic host and the troubles that come over it.
//!
//! [`Scenario::load`] takes the name of an embedded one or a path. A scenario that exists is valid:
//! every VM that is named is there, every number is possible, and sizes are bounded.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use super::raw::{RawExpect, RawScenario};
use crate::config::values::{duration, show_duration};
use crate::config::{parse_named, ConfigError};

mod load;

use load::{add_vms, raw, with_base};

pub use super::raw::Pin;

/// The scenarios in the program: name and text.
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

/// Logical CPUs of the host: two packages of 28 cores with two threads each.
pub const CPUS: u32 = 112;
/// Cores of each package.
pub const CORES: u32 = 28;
/// Cores of the host: the second thread of CPU n is n + this.
pub const FIRSTS: u32 = 2 * CORES;

/// Most VMs, vCPUs of all of them together, and troubles of a scenario.
const MOST_VMS: usize = 512;
const MOST_VCPUS: u32 = 4096;
const MOST_TROUBLES: usize = 256;
/// Longest name (bytes), as labels have it.
const MOST_NAME: usize = 128;

/// A valid scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows, for people.
    pub about: String,
    /// The VMs.
    pub vms: Vec<VmSpec>,
    /// What goes wrong, by start.
    pub troubles: Vec<Trouble>,
}

/// What each vCPU of a VM does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Part of a core that a vCPU wants, 0 to 1.
    pub demand: f64,
    /// Cycles for each instruction of the guest.
    pub cpi: f64,
    /// Misses of the last-level cache for each 1000 instructions of the guest.
    pub cache_mpki: f64,
    /// Exits for each second of vCPU time.
    pub exits: f64,
}

/// One VM.
#[derive(Debug, Clone, PartialEq)]
pub struct VmSpec {
    /// The name that libvirt and nova have.
    pub name: String,
    /// nova's flavor.
    pub flavor: String,
    /// What it does.
    pub workload: Workload,
    /// How many vCPUs.
    pub vcpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// CPUs it may use.
    pub cpus: Vec<u32>,
    /// How its vCPUs are bound to them.
    pub pin: Pin,
    /// CPU quota in cores.
    pub quota: Option<f64>,
    /// Whether it holds a GPU by VFIO.
    pub device: bool,
    /// Whether it has an I/O thread beside its emulator's.
    pub iothread: bool,
    /// When it starts.
    pub starts: Duration,
    /// When it ends.
    pub ends: Option<Duration>,
}

impl VmSpec {
    /// The node its vCPUs begin on; its memory is there.
    pub fn node(&self) -> u32 {
        self.cpus.first().map_or(0, |cpu| node_of(*cpu))
    }

    /// Whether it runs at this time.
    pub fn runs(&self, at: Duration) -> bool {
        self.starts <= at && self.ends.is_none_or(|end| at < end)
    }
}

/// Something goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What it is called.
    pub name: String,
    /// What goes wrong.
    pub kind: Kind,
    /// When.
    pub start: Duration,
    /// For how long.
    pub length: Duration,
    /// The alerts it leads to, and no others.
    pub expect: Vec<Expect>,
}

/// An alert that a trouble leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Its name.
    pub alert: String,
    /// Labels it has, among others.
    pub labels: BTreeMap<String, String>,
    /// Time from the trouble's start to its firing.
    pub within: Duration,
}

/// What goes wrong. VMs are numbers in [`Scenario::vms`].
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // docs/SYNTHETIC.md describes each
pub enum Kind {
    NoisyNeighbour {
        vm: usize,
        demand: f64,
        victims: Vec<usize>,
        cpi: f64,
        misses: f64,
    },
    MemoryRemote {
        vm: usize,
        cpi: f64,
    },
    SharedCores {
        vm: usize,
        cpus: Vec<u32>,
        demand: f64,
        cpi: f64,
    },
    Quota {
        vm: usize,
        demand: f64,
    },
    IothreadOnCore {
        vm: usize,
        vcpu: u32,
        demand: f64,
        share: f64,
    },
    PackageThrottled {
        package: u32,
        share: f64,
    },
    ExitStorm {
        vm: usize,
        exits: f64,
    },
    DeviceRemote {
        vm: usize,
    },
    Multiplexed {
        share: f64,
    },
}

impl Trouble {
    /// Whether it is there at this time.
    pub fn is_on(&self, at: Duration) -> bool {
        self.start <= at && at < self.end()
    }

    /// When it is over.
    pub fn end(&self) -> Duration {
        self.start + self.length
    }
}

/// Node and package of a CPU.
pub fn node_of(cpu: u32) -> u32 {
    cpu % FIRSTS / CORES
}

/// Why a scenario cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is none of that name.
    #[error(
        "there is no scenario {0:?}: expected calm, troubles, incident or the path of a YAML file"
    )]
    Unknown(String),
    /// It cannot be read, or is no YAML of a scenario's form.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// It says something impossible.
    #[error("scenario {scenario}: {what}")]
    Impossible {
        /// Its name.
        scenario: String,
        /// What is impossible, and what would be possible.
        what: String,
    },
}

impl Scenario {
    /// The embedded scenario of this name, else the one in the file at this path.
    ///
    /// # Errors
    /// Says what is wrong, where, and what was expected.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        let raw = raw(name, Path::new(""), 0)?;
        let stem = Path::new(name)
            .file_stem()
            .map(|stem| stem.to_string_lossy());
        let name = stem.map_or_else(|| name.to_owned(), |stem| clip(&stem));
        Self::of(raw, &name).map_err(|what| ScenarioError::Impossible {
            scenario: name,
            what,
        })
    }

    /// A scenario from text.
    ///
    /// # Errors
    /// As [`Scenario::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let raw = with_base(parse_named(text, Path::new(name))?, Path::new(""), 0)?;
        Self::of(raw, name).map_err(|what| ScenarioError::Impossible {
            scenario: name.to_owned(),
            what,
        })
    }

    fn of(raw: RawScenario, name: &str) -> Result<Self, String> {
        let mut vms = Vec::new();
        for vm in &raw.vms {
            add_vms(&mut vms, vm, &raw.workloads)?;
        }
        bound("VMs", vms.len(), MOST_VMS)?;
        let vcpus: u32 = vms.iter().map(|vm| vm.vcpus).sum();
        bound(
            "vCPUs of all VMs together",
            vcpus as usize,
            MOST_VCPUS as usize,
        )?;
        let mut names = HashSet::new();
        if let Some(twice) = vms.iter().find(|vm| !names.insert(&vm.name)) {
            return Err(format!("two VMs are called {:?}", twice.name));
        }
        bound("troubles", raw.troubles.len(), MOST_TROUBLES)?;
        let troubles = raw.troubles.iter().map(|raw| {
            let trouble = super::troubles::read(raw, &vms);
            trouble.map_err(|what| format!("trouble {:?}: {what}", clip(&raw.name)))
        });
        let mut troubles = troubles.collect::<Result<Vec<_>, _>>()?;
        troubles.sort_by_key(|trouble| trouble.start);
        Ok(Self {
            name: name.to_owned(),
            about: raw.about,
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

pub(super) fn expects(raw: &[RawExpect]) -> Result<Vec<Expect>, String> {
    let one = |raw: &RawExpect| {
        Ok(Expect {
            alert: raw.alert.clone(),
            labels: raw.labels.clone(),
            within: time(&raw.within)?,
        })
    };
    raw.iter().map(one).collect()
}

/// A duration of the script.
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
    match (least..=most).contains(&n) {
        true => Ok(n),
        false => Err(format!("{name}: expected {least} to {most}, found {n}")),
    }
}

fn bound(what: &str, n: usize, most: usize) -> Result<(), String> {
    match n <= most {
        true => Ok(()),
        false => Err(format!("{what}: {n} are more than {most}")),
    }
}

/// What a message or a label may quote of a text.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
