//! Configuration: one YAML file, read into a validated [`Config`]. The only user of serde_yaml.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that can be configured, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `web`
    pub web: Web,
    /// `paths`
    pub paths: Paths,
    /// `sampling`
    pub sampling: Sampling,
    /// `labels`
    pub labels: LabelConfig,
    /// `limits`
    pub limits: Limits,
    /// `sources`
    pub sources: Sources,
}

/// `web`: serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Where to listen.
    pub listen_address: SocketAddr,
}

/// `paths`: where the host's file systems are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// procfs
    pub procfs: PathBuf,
    /// sysfs
    pub sysfs: PathBuf,
    /// cgroup hierarchy
    pub cgroupfs: PathBuf,
    /// debugfs
    pub debugfs: PathBuf,
    /// tracefs
    pub tracefs: PathBuf,
    /// run-time state of daemons
    pub runfs: PathBuf,
}

/// `sampling`: periods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampling {
    /// Period of a tick, 100 ms to 1 min.
    pub tick: Duration,
    /// Period of an inventory pass, 1 s to 5 min.
    pub inventory: Duration,
}

/// `labels`: how finely activity is attributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelConfig {
    /// Which place labels activity counters carry.
    pub placement: Placement,
    /// After how long without activity a (vCPU, place) leaves the exposition.
    pub cell_ttl: Duration,
}

/// Which place labels activity counters carry, finest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// `package`, `core`, `numa_node`.
    Core,
    /// `numa_node`.
    NumaNode,
    /// None.
    None,
}

/// `limits`: hard bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most series in the exposition.
    pub max_series: usize,
}

/// `sources`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sources {
    /// `pmu`
    pub pmu: Pmu,
}

/// `sources.pmu`: hardware counters.
#[derive(Debug, Clone, PartialEq)]
pub struct Pmu {
    /// Whether any counter is opened.
    pub enabled: bool,
    /// Whether the host side (the VMM and KVM on the vCPU's behalf) is counted too.
    pub host_mode: bool,
    /// Optional event sets, beyond the default groups.
    pub events: Vec<EventSet>,
    /// User-defined raw events, at most [`MAX_RAW_EVENTS`].
    pub raw: Vec<RawEvent>,
}

/// Most user-defined raw events.
pub const MAX_RAW_EVENTS: usize = 16;

/// Optional event sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventSet {
    /// Branch instructions retired.
    Branches,
    /// Data TLB load misses.
    Dtlb,
    /// Stalled cycles, frontend and backend.
    Stalled,
    /// Loads served by local and remote DRAM.
    DramLoads,
    /// Topdown slots, where the core has them.
    Topdown,
}

/// A user-defined event: `cpu/event=0xd3,umask=0x2/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Value of the `event` label.
    pub name: String,
    /// The event, in perf's syntax; its terms are resolved through sysfs when the exporter starts.
    pub event: String,
    /// Count the guest.
    pub guest: bool,
    /// Count the host side.
    pub host: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            web: Web {
                listen_address: SocketAddr::from(([127, 0, 0, 1], 9752)),
            },
            paths: Paths {
                procfs: "/proc".into(),
                sysfs: "/sys".into(),
                cgroupfs: "/sys/fs/cgroup".into(),
                debugfs: "/sys/kernel/debug".into(),
                tracefs: "/sys/kernel/tracing".into(),
                runfs: "/run".into(),
            },
            sampling: Sampling {
                tick: Duration::from_secs(1),
                inventory: Duration::from_secs(5),
            },
            labels: LabelConfig {
                placement: Placement::Core,
                cell_ttl: Duration::from_secs(600),
            },
            limits: Limits {
                max_series: 200_000,
            },
            sources: Sources::default(),
        }
    }
}

impl Default for Pmu {
    fn default() -> Self {
        Self {
            enabled: true,
            host_mode: true,
            events: Vec::new(),
            raw: Vec::new(),
        }
    }
}
