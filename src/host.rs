//! Read-only parsers of the machine's state. Every kernel path is below a root of [`roots`].

pub(crate) mod cgroup;
pub mod cpu_model;
pub(crate) mod cpu_time;
pub(crate) mod cpulist;
pub(crate) mod fds;
pub(crate) mod hwmon;
pub mod identity;
pub(crate) mod kernel_log;
mod key_value;
pub(crate) mod kvm_stats;
pub(crate) mod label;
pub(crate) mod memory;
pub(crate) mod nodes;
mod number;
mod payer;
pub(crate) mod pci;
pub(crate) mod pmu;
pub mod privileges;
pub(crate) mod readers;
pub(crate) mod resctrl;
pub mod roots;
pub(crate) mod task;
pub(crate) mod text;
pub mod thread;
pub mod topology;
pub(crate) mod vfio;
