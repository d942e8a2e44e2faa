//! `vcpu-exporter`: what every vCPU of every KVM virtual machine on this host is doing.
//!
//! Data flows one way, and so do the imports (held by `tests/layering.rs`):
//!
//! ```text
//! host facts ─┐
//!             ├─> discover ──> sample ──────> snapshot ──> expose
//! /proc, /sys ┘   who runs     thread, ledger  one picture   /metrics, status page
//! ```
//!
//! - [`host`] reads the machine below configurable roots, so a directory tree is a host.
//! - [`pt`] reduces an Intel PT trace to its figures: pure, bytes in, numbers out.
//! - [`discover`] knows which VMs and vCPUs exist.
//! - [`sample`] reads each vCPU thread once a tick and keeps the running totals.
//! - [`snapshot`] is one immutable picture of everything known; the catalogue of metrics is here.
//! - [`expose`] draws all output from the newest snapshot and never touches the host.
//!
//! [`config`] and [`telemetry`] (the exporter's own metrics) know nobody; [`cli`] wires the
//! stages together.

pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod discover;
pub mod expose;
pub mod host;
pub mod pt;
pub mod sample;
pub mod snapshot;
pub mod stop;
mod sys;
pub mod telemetry;

#[cfg(test)]
#[path = "../tests/support/fake_host.rs"]
mod fake_host;
