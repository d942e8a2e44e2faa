//! The program and its servers as processes: beside real guests, real clients and receivers, and with
//! what a machine refuses. What the machine lacks is said and skipped.
// Clippy knows tests by their attribute, not their helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

/// What several tests share.
mod support {
    pub(crate) mod exporter;
    pub(crate) mod exposition;
    #[cfg(feature = "demo")]
    pub(crate) mod micro_vm;
    pub(crate) mod otlp_series;
    pub(crate) mod otlp_sink;
    pub(crate) mod real_vms;
    pub(crate) mod run;
    pub(crate) mod snapshots;
    #[cfg(feature = "demo")]
    pub(crate) mod timer_guest;
    #[cfg(feature = "fixtures")]
    pub(crate) mod tmux;
}

mod blocked;
mod cgroup;
mod confined;
mod demo;
mod exits;
mod hidepid;
mod host;
mod hostile_clients;
mod http;
mod inventory_qemu;
mod kernel_log;
mod kvm_stat;
mod memory;
mod micro_vm;
mod otlp;
mod otlp_tls;
mod pt_capture;
mod seccomp;
mod threads;
mod top;
mod truth;
mod unprivileged;
