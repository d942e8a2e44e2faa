//! Columns of the table of VMs.

use std::cmp::Ordering;

use super::format::{count, number, percent};
use crate::expose::view::{Cause, VmView};

/// A column; each can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Column {
    Name,
    /// The worst of all causes.
    #[default]
    Worst,
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
    pub(super) const ALL: [Self; 17] = [
        Self::Name,
        Self::Worst,
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

    /// Its name in the address.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Worst => "worst",
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

    /// What its numbers say.
    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Name => "Name of the VM",
            Self::Worst => "The worst cause, in times of the threshold from which it is trouble",
            Self::Vcpus => "vCPUs",
            Self::Time => "Cores its vCPUs were on",
            Self::Delay => "Share of the time it wants to run that its worst vCPU waits for a core",
            Self::Starved => "A vCPU's delay against its siblings', in times of the threshold",
            Self::Quota => "Share of periods in which its CPU quota ran out",
            Self::Memory => "Share of its memory on nodes with CPUs where it does not run",
            Self::Devices => "Devices on nodes where it does not run",
            Self::Cpi => "Cycles per instruction in the guest",
            Self::Peers => "CPI against VMs of its flavor, in times of the limit",
            Self::Cache => "Cache misses per 1000 instructions in the guest",
            Self::Smt => "Share of its time on a core beside a busy thread",
            Self::Throttling => "Share of the time in which its packages were too hot",
            Self::Frequency => "Frequency of its cores over the one they are made for",
            Self::Exits => "Exits a second",
            Self::Migrations => "Moves of its vCPUs to another CPU, a second",
        }
    }

    /// The cause it shows, if it does.
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

    /// Its number for a VM, if it is known.
    pub(super) fn value(self, vm: &VmView) -> Option<f64> {
        let cause = |wanted| vm.causes.iter().find(|cause| cause.cause == wanted);
        match self {
            Self::Name => None,
            Self::Worst => vm.causes.first().map(|cause| cause.score),
            Self::Vcpus => Some(vm.vcpu_count() as f64),
            Self::Time => vm.numbers.time,
            Self::Delay => cause(Cause::Delay).map(|cause| cause.observed),
            Self::Starved => cause(Cause::Starved).map(|cause| cause.score),
            Self::Quota => vm.throttled,
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

    /// The same for people.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::Delay | Self::Quota | Self::Memory | Self::Smt | Self::Throttling => {
                percent(value)
            }
            Self::Worst | Self::Starved | Self::Peers => format!("{}×", number(value)),
            Self::Time | Self::Cpi | Self::Frequency => format!("{value:.2}"),
            Self::Vcpus | Self::Devices => count(value),
            Self::Cache | Self::Migrations => number(value),
            Self::Exits => count(value),
            Self::Name => String::new(),
        }
    }

    /// Puts what is larger last, what is unknown first, and VMs that are equal in the order of
    /// their names.
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
