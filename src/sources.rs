//! What is measured: one file (and folder) for each source.
//!
//! A source states what it needs and costs, declares its metrics and reads them. It implements an
//! interface of [`engine`](crate::engine), which calls it.

pub mod cgroup;
pub mod devices;
pub mod exits;
pub mod host;
pub mod memory;
pub mod pmu;
pub mod pt;
pub mod resctrl;
pub mod sched;
pub mod threads;
