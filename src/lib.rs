//! `vcpu-exporter`: activity of every vCPU of every KVM virtual machine on this host.
//!
//! Data flows one way, and so do the imports (checked by `tests/layering.rs`):
//!
//! ```text
//! host facts ─┐
//!             ├─> discover ──> engine and sources ──> snapshot ──> diagnosis ──> expose
//! /proc, /sys ┘   who runs     what each did          immutable    what is wrong /metrics, page
//! ```
//!
//! - [`host`] reads the machine below configurable roots, so a directory tree can be a host.
//! - [`pt`] reduces an Intel PT trace to counts: pure functions from bytes to numbers.
//! - [`discover`] finds the VMs and their vCPUs.
//! - [`engine`] reads each vCPU thread once per tick and keeps the running totals; [`sources`] are
//!   what it reads.
//! - [`snapshot`] is the immutable result of a tick; the list of all metrics is here.
//! - [`diagnosis`] compares two snapshots: which VM is slow, and why.
//! - [`expose`] renders the latest snapshot and its diagnosis, and never touches the host.
//!
//! A [`metric`] is declared by the code that feeds it. [`config`] and [`telemetry`] (the exporter's
//! own metrics) import no stage; [`cli`] connects the stages.

pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod diagnosis;
pub mod discover;
pub mod engine;
pub mod expose;
#[cfg(any(test, feature = "fixtures"))]
#[doc(hidden)]
pub mod fake_host;
pub mod host;
pub mod metric;
pub mod pt;
pub mod snapshot;
pub mod sources;
pub(crate) mod stop;
mod sys;
pub mod telemetry;
