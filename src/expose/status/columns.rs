//! Columns of the VM table.

use std::cmp::Ordering;

use super::format::{count, number, percent};
use crate::diagnosis::{Cause, VmView};

/// A column; the table can be sorted by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Column {
    Name,
    /// Score of the VM's worst cause.
    #[default]
    Worst,
    /// Score of the worst cause that another VM has because of this one.
    Pushes,
    Vcpus,
    Time,
    Delay,
    Starved,
    Quota,
    Memory,
    Devices,
    Cpi,
    Peers,
    Cache,
    Smt,
    Throttling,
    Frequency,
    Exits,
    Migrations,
}

impl Column {
    pub(super) const ALL: [Self; 18] = [
        Self::Name,
        Self::Worst,
        Self::Pushes,
        Self::Vcpus,
        Self::Time,
        Self::Delay,
        Self::Starved,
        Self::Quota,
        Self::Memory,
        Self::Devices,
        Self::Cpi,
        Self::Peers,
        Self::Cache,
        Self::Smt,
        Self::Throttling,
        Self::Frequency,
        Self::Exits,
        Self::Migrations,
    ];

    /// The column's name in the URL.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Worst => "worst",
            Self::Pushes => "pushes",
            Self::Vcpus => "vcpus",
            Self::Time => "time",
            Self::Delay => "delay",
            Self::Starved => "starved",
            Self::Quota => "quota",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Cpi => "cpi",
            Self::Peers => "peers",
            Self::Cache => "cache",
            Self::Smt => "smt",
            Self::Throttling => "throttling",
            Self::Frequency => "frequency",
            Self::Exits => "exits",
            Self::Migrations => "migrations",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "VM",
            Self::Worst => "Worst",
            Self::Pushes => "Pushes others",
            Self::Vcpus => "vCPUs",
            Self::Time => "Cores",
            Self::Delay => "Delay",
            Self::Starved => "Starved",
            Self::Quota => "Quota",
            Self::Memory => "Memory",
            Self::Devices => "Devices",
            Self::Cpi => "CPI",
            Self::Peers => "Peers",
            Self::Cache => "Misses",
            Self::Smt => "SMT",
            Self::Throttling => "Hot",
            Self::Frequency => "Clock",
            Self::Exits => "Exits",
            Self::Migrations => "Moves",
        }
    }

    /// The tooltip.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Name => "Name of the VM",
            Self::Worst => "Its worst cause, as a multiple of the threshold",
            Self::Pushes => "The worst cause of another VM that it slows down, as a multiple of the threshold",
            Self::Vcpus => "vCPUs",
            Self::Time => "Cores that its vCPUs use",
            Self::Delay => "Share of runnable time that its worst vCPU waits for a core, excluding waits that its quota explains",
            Self::Starved => "A vCPU's delay compared with its other vCPUs, as a multiple of the threshold",
            Self::Quota => "Share of runnable time that it is throttled by its CPU quota",
            Self::Memory => "Share of its memory accesses that are remote, estimated from where it runs and where its memory is",
            Self::Devices => "Devices on NUMA nodes far from where its vCPUs run",
            Self::Cpi => "Cycles per instruction in the guest",
            Self::Peers => "CPI compared with its peers, as a multiple of the limit",
            Self::Cache => "Cache misses per 1000 instructions in the guest",
            Self::Smt => "Share of its CPU time in which the sibling thread of its core is busy",
            Self::Throttling => "Share of time in which its CPU packages were throttled by heat",
            Self::Frequency => "Frequency of its cores, as a multiple of the nominal frequency",
            Self::Exits => "Exits to the host per second",
            Self::Migrations => "Moves of its vCPUs to another CPU, per second",
        }
    }

    /// The cause that the column shows.
    pub(super) fn cause(self) -> Option<Cause> {
        match self {
            Self::Delay => Some(Cause::Delay),
            Self::Starved => Some(Cause::Starved),
            Self::Quota => Some(Cause::Quota),
            Self::Memory => Some(Cause::MemoryRemote),
            Self::Devices => Some(Cause::DeviceRemote),
            Self::Peers => Some(Cause::CpiPeers),
            Self::Cache => Some(Cause::Cache),
            Self::Smt => Some(Cause::Smt),
            Self::Throttling => Some(Cause::Throttling),
            Self::Exits => Some(Cause::Exits),
            _ => None,
        }
    }

    /// The VM's value; `None` if unknown.
    pub(super) fn value(self, vm: &VmView) -> Option<f64> {
        let cause = |wanted| vm.causes.iter().find(|cause| cause.cause == wanted);
        match self {
            Self::Name => None,
            Self::Worst => vm.causes.first().map(|cause| cause.score),
            Self::Pushes => Some(vm.pushes.first().map_or(0.0, |push| push.score)),
            Self::Vcpus => Some(vm.vcpu_count() as f64),
            Self::Time => vm.numbers.time,
            Self::Delay => cause(Cause::Delay).map(|cause| cause.observed),
            Self::Starved => cause(Cause::Starved).map(|cause| cause.score),
            Self::Quota => vm.quota_wait,
            Self::Memory => vm.memory_remote,
            Self::Devices => vm.devices_remote.map(|n| n as f64),
            Self::Cpi => vm.numbers.cpi,
            Self::Peers => cause(Cause::CpiPeers).map(|cause| cause.score),
            Self::Cache => vm.numbers.cache_mpki,
            Self::Smt => vm.smt_shared,
            Self::Throttling => vm.hot,
            Self::Frequency => vm.frequency,
            Self::Exits => vm.numbers.exits,
            Self::Migrations => vm.numbers.migrations,
        }
    }

    /// The value as text.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Delay | Self::Quota | Self::Memory | Self::Smt | Self::Throttling => {
                percent(value)
            }
            Self::Worst | Self::Pushes | Self::Starved | Self::Peers => {
                format!("{}×", number(value))
            }
            Self::Time | Self::Cpi | Self::Frequency => format!("{value:.2}"),
            Self::Vcpus | Self::Devices => count(value),
            Self::Cache | Self::Migrations => number(value),
            Self::Exits => count(value),
            Self::Name => String::new(),
        }
    }

    /// Orders VMs by value, unknown first. Equal ones keep the view's order, which is by name.
    pub(super) fn compare(self, a: &VmView, b: &VmView) -> Ordering {
        match self {
            Self::Name => a.name.cmp(&b.name),
            _ => {
                let value = |vm| self.value(vm).unwrap_or(f64::NEG_INFINITY);
                value(a).total_cmp(&value(b))
            }
        }
    }
}
