//! A synthetic host: a simulated server with two packages, its VMs, and their troubles, to show the
//! exporter, its rules and its dashboards.
//!
//! It is a directory tree, which the exporter reads like a real host. Counters and Intel PT
//! recordings are simulated at the two interfaces where the exporter calls the kernel. A scenario
//! is the script:
//!
//! - [`scenario`] is the script: VMs and troubles, read from YAML and validated (`raw`,
//!   `troubles`).
//! - `timeline` lists the troubles that are active at a time, and their effects.
//! - `model` computes the rates of each vCPU and its CPU (`places`), with a little `noise`. It is a
//!   function of scenario, seed and time.
//! - `cpus` divides each CPU's time among its threads, and accounts it as in /proc/stat.
//! - `state` adds up the rates in steps of a fixed length, `counts` those of counters.
//! - `host` writes the state into the tree (`tree`): files of the machine (`machine`) and of each
//!   VM (`guest`). `counters` and `pt` replace the kernel's counters and recordings.
//! - `configuration` configures the exporter for the host.
//!
//! Nothing changes while the exporter reads: one thread advances the host and reads it in turn.

mod configuration;
mod counters;
mod counts;
mod cpus;
mod guest;
mod host;
mod machine;
mod model;
mod noise;
mod places;
mod pt;
mod rates;
mod raw;
pub mod scenario;
mod state;
mod timeline;
mod tree;

pub use configuration::configuration;
pub use host::Host;
pub use scenario::Scenario;
