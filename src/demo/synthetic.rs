//! A synthetic host: a server of two packages and its VMs that do not exist, and what goes wrong on
//! it, to see the exporter, its rules and its dashboards on.
//!
//! It is a directory tree that the real code reads from inventory to exposition, counters and
//! recordings behind the two seams where the exporter asks the kernel, and a script of time:
//!
//! - [`scenario`] is the script: VMs and troubles, read from YAML and validated (`raw`, `troubles`).
//! - `timeline` says which troubles are on at a moment and what they change.
//! - `model` says what everything does then, as rates: of each vCPU, where it runs (`places`), with a
//!   little `noise`. It is a function of scenario, seed and time.
//! - `state` adds the rates up in steps of a fixed length, `counts` those of counters.
//! - `host` writes the state into the tree (`tree`): the machine's files (`machine`), each VM's
//!   (`guest`); `counters` and `pt` answer in the kernel's place.
//! - `configuration` sets the exporter to watch it.
//!
//! Nothing changes while the exporter reads: whoever runs it moves the host on and reads it by turns
//! on one thread.

mod configuration;
mod counters;
mod counts;
mod guest;
mod host;
mod machine;
mod model;
mod noise;
mod places;
mod pt;
mod raw;
pub mod scenario;
mod state;
mod timeline;
mod tree;
mod troubles;

pub use configuration::configuration;
pub use host::Host;
pub use scenario::{Scenario, ScenarioError};
pub use timeline::Happening;
