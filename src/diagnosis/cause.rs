//! Causes that may slow down a VM: one entry for each, from which the page, `/api/view` and `top`
//! draw.
//!
//! Causes and conditions are those of the recording rule `kvm_vm:trouble:score` in mixin/rules, and
//! thresholds come from the same file. The rule covers five minutes, this code seconds: a problem
//! that ends within a minute appears here but does not alert. Peers are VMs on this host;
//! Prometheus compares with peers on all hosts. Only Prometheus has a history: `cpi_week` is not
//! here, and cache misses are compared with those of peers instead of the VM's own an hour before.

use serde::{Deserialize, Serialize};

use super::observe::{self, Case, Observed, Seen};
use super::suspect::Suspects;
use super::thresholds::{thresholds, Thresholds};
use super::words::Words;
use super::{verdict, VmView};

/// A cause with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseView {
    pub cause: Cause,
    /// Observed value over threshold: 1 or more is a problem.
    pub score: f64,
    /// The observed value, in the unit of the threshold.
    pub(crate) observed: f64,
    /// The value from which it is a problem.
    pub threshold: f64,
    /// Name of its alert and of the alert's runbook.
    pub alert: String,
    /// The observed value in words.
    pub text: String,
}

/// All that the exporter knows about a cause.
pub(crate) struct CauseInfo {
    /// Name of its alert and of the alert's runbook.
    alert: &'static str,
    /// The name for display.
    pub(crate) title: &'static str,
    /// Title of its column in `top`: at most five characters.
    pub(crate) short: &'static str,
    /// Its column on the page.
    pub(crate) column: CauseColumn,
    threshold: fn(&Thresholds) -> f64,
    pub(super) against: Against,
    /// The value of a VM; `None` if unknown, or if the VM is too idle to be judged.
    pub(super) observe: fn(&Case<'_>) -> Option<Observed>,
    /// The observed value in words, without a period.
    pub(super) text: fn(&Case<'_>, Seen) -> Words,
}

/// What a value is compared with. Of causes with equal scores, the earlier kind comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Against {
    /// Only the threshold.
    Threshold,
    /// Also what the VM's spread over nodes explains.
    Spread,
    /// Also the VM's other vCPUs.
    Siblings,
    /// Also other VMs that do the same work.
    Peers,
}

/// A column of the page's table of VMs.
#[derive(Clone, Copy)]
pub(crate) struct CauseColumn {
    /// Its name in the URL.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// The tooltip.
    pub(crate) help: &'static str,
    pub(crate) unit: Unit,
    /// The VM's value; `None` if unknown.
    pub(crate) value: fn(&VmView) -> Option<f64>,
}

/// How a column's values are written.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// A percentage.
    Share,
    /// A multiple of the threshold.
    Multiple,
    /// Two decimals.
    Ratio,
    /// Two significant digits.
    Number,
    /// An integer.
    Count,
}

/// Declares [`Cause`] from its table.
macro_rules! causes {
    ($($(#[$about:meta])+ $cause:ident: $info:expr;)+) => {
        /// A cause that may slow down a VM.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Cause {
            $($(#[$about])+ $cause,)+
        }

        impl Cause {
            /// All causes, in the order of columns.
            pub const ALL: [Self; [$(Self::$cause),+].len()] = [$(Self::$cause),+];

            /// The cause's entry in the table.
            pub(crate) fn info(self) -> &'static CauseInfo {
                match self {
                    $(Self::$cause => {
                        static INFO: CauseInfo = $info;
                        &INFO
                    })+
                }
            }
        }
    };
}

causes! {
    /// A vCPU waits for a core.
    Delay: CauseInfo {
        alert: "KvmVmCpuDelayHigh",
        title: "Delay",
        short: "delay",
        column: CauseColumn {
            key: "delay",
            title: "Delay",
            help: "Share of runnable time that its worst vCPU waits for a core, excluding waits that its quota explains",
            unit: Unit::Share,
            value: |vm| vm.cause(Cause::Delay).map(|cause| cause.observed),
        },
        threshold: |limits| limits.delay,
        against: Against::Threshold,
        observe: observe::delay,
        text: verdict::delay,
    };

    /// One vCPU waits much more than the VM's other vCPUs.
    Starved: CauseInfo {
        alert: "KvmVcpuStarved",
        title: "Starved vCPU",
        short: "starv",
        column: CauseColumn {
            key: "starved",
            title: "Starved",
            help: "A vCPU's delay compared with its other vCPUs, as a multiple of the threshold",
            unit: Unit::Multiple,
            value: |vm| vm.score(Cause::Starved),
        },
        threshold: |limits| limits.starved,
        against: Against::Siblings,
        observe: observe::starved,
        text: verdict::starved,
    };

    /// A CPU quota throttles it.
    Quota: CauseInfo {
        alert: "KvmVmQuotaThrottled",
        title: "Quota",
        short: "quota",
        column: CauseColumn {
            key: "quota",
            title: "Quota",
            help: "Share of runnable time that it is throttled by its CPU quota",
            unit: Unit::Share,
            value: |vm| vm.quota_wait,
        },
        threshold: |limits| limits.quota_wait,
        against: Against::Threshold,
        observe: observe::quota,
        text: verdict::quota,
    };

    /// Its memory is on nodes where it does not run.
    MemoryRemote: CauseInfo {
        alert: "KvmVmMemoryRemote",
        title: "Remote memory",
        short: "mem",
        column: CauseColumn {
            key: "memory",
            title: "Memory",
            help: "Share of its memory accesses that are remote, estimated from where it runs and where its memory is",
            unit: Unit::Share,
            value: |vm| vm.memory_remote,
        },
        threshold: |limits| limits.memory_remote,
        against: Against::Spread,
        observe: observe::memory,
        text: verdict::memory,
    };

    /// A device is on nodes far from where it runs.
    DeviceRemote: CauseInfo {
        alert: "KvmVmDeviceRemote",
        title: "Remote devices",
        short: "dev",
        column: CauseColumn {
            key: "devices",
            title: "Devices",
            help: "Devices on NUMA nodes far from where its vCPUs run",
            unit: Unit::Count,
            value: |vm| vm.devices_remote.map(|n| n as f64),
        },
        threshold: |limits| limits.device_remote,
        against: Against::Spread,
        observe: observe::devices,
        text: verdict::devices,
    };

    /// It needs more cycles per instruction than VMs that do the same work.
    CpiPeers: CauseInfo {
        alert: "KvmVmCpiAbovePeers",
        title: "CPI above peers",
        short: "peers",
        column: CauseColumn {
            key: "peers",
            title: "Peers",
            help: "CPI compared with its peers, as a multiple of the limit",
            unit: Unit::Multiple,
            value: |vm| vm.score(Cause::CpiPeers),
        },
        // The limit depends only on the peers.
        threshold: |_| 0.0,
        against: Against::Peers,
        observe: observe::cpi,
        text: verdict::cpi,
    };

    /// It has many cache misses.
    Cache: CauseInfo {
        alert: "KvmVmCacheMissStorm",
        title: "Cache misses",
        short: "cache",
        column: CauseColumn {
            key: "cache",
            title: "Misses",
            help: "Cache misses per 1000 instructions in the guest",
            unit: Unit::Number,
            value: |vm| vm.numbers.cache_mpki,
        },
        threshold: |limits| limits.cache_mpki,
        against: Against::Peers,
        observe: observe::cache,
        text: verdict::cache,
    };

    /// It shares cores with busy threads while others are idle.
    Smt: CauseInfo {
        alert: "KvmVmSmtContention",
        title: "SMT contention",
        short: "smt",
        column: CauseColumn {
            key: "smt",
            title: "SMT",
            help: "Share of its CPU time in which the sibling thread of its core is busy",
            unit: Unit::Share,
            value: |vm| vm.smt_shared,
        },
        threshold: |limits| limits.smt_shared,
        against: Against::Threshold,
        observe: observe::smt,
        text: verdict::smt,
    };

    /// Its CPU packages are throttled by heat.
    Throttling: CauseInfo {
        alert: "KvmPackageThrottled",
        title: "Throttling",
        short: "hot",
        column: CauseColumn {
            key: "throttling",
            title: "Hot",
            help: "Share of time in which its CPU packages were throttled by heat",
            unit: Unit::Share,
            value: |vm| vm.hot,
        },
        threshold: |limits| limits.package_throttled,
        against: Against::Threshold,
        observe: observe::throttling,
        text: verdict::throttling,
    };

    /// It exits to the host often.
    Exits: CauseInfo {
        alert: "KvmVmExitStorm",
        title: "Exits",
        short: "exits",
        column: CauseColumn {
            key: "exits",
            title: "Exits",
            help: "Exits to the host per second",
            unit: Unit::Count,
            value: |vm| vm.numbers.exits,
        },
        threshold: |limits| limits.exits_per_cpu_second,
        against: Against::Threshold,
        observe: observe::exits,
        text: verdict::exits,
    };
}

impl Cause {
    /// The value from which it is a problem. For causes that are compared with more than the
    /// threshold, it is the minimum.
    pub fn threshold(self) -> f64 {
        (self.info().threshold)(thresholds())
    }

    /// The VM that is responsible. For SMT none is: sibling threads slow each other down equally.
    pub(super) fn culprit(self, suspects: &Suspects) -> Option<usize> {
        match self {
            Self::Delay | Self::Starved => suspects.of_core(),
            Self::Cache => suspects.cache,
            _ => None,
        }
    }

    /// The cause whose sentence says the same.
    pub(super) fn part_of(self) -> Option<Self> {
        (self == Self::Starved).then_some(Self::Delay)
    }

    /// The alert for this cause, which is also the name of its runbook.
    pub fn alert(self) -> &'static str {
        self.info().alert
    }
}
