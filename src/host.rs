//! Read-only views of the machine. Every kernel path is joined in [`roots`].

pub mod cgroup;
pub mod cpu_model;
pub mod cpulist;
pub mod fds;
pub mod hwmon;
pub mod identity;
pub mod kernel_log;
pub mod memory;
pub mod nodes;
pub mod pci;
pub mod pmu;
pub mod privileges;
pub mod readers;
pub mod resctrl;
pub mod roots;
pub mod thread;
pub mod topology;
pub mod vfio;
