//! Read-only parsers of the machine's state. Every kernel path is below a root of [`roots`].

pub mod cgroup;
pub mod cpu_model;
pub mod cpu_time;
pub mod cpulist;
pub mod fds;
pub mod hwmon;
pub mod identity;
pub mod kernel_log;
mod key_value;
pub(crate) mod label;
pub mod memory;
pub mod nodes;
mod number;
pub mod pci;
pub mod pmu;
pub mod privileges;
pub mod readers;
pub mod resctrl;
pub mod roots;
pub mod task;
pub mod text;
pub mod thread;
pub mod topology;
pub mod vfio;
