//! Measurements of the exporter on emulated hosts with a PMU, KVM and two NUMA nodes, checked
//! against independent sources.
//!
//! `cargo test --test hosts` runs these; plain `cargo test` omits them because they take minutes
//! and require the packages named in `tests/hosts/prepare`. `docs/TRUTH.md` has the results.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(feature = "demo")]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "hosts/machine.rs"]
mod machine;

#[path = "hosts/sandwich.rs"]
mod sandwich;

#[path = "hosts/boot.rs"]
mod boot;
#[path = "hosts/churn.rs"]
mod churn;
#[path = "hosts/disturbance.rs"]
mod disturbance;
#[path = "hosts/exits.rs"]
mod exits;
#[path = "hosts/instructions.rs"]
mod instructions;
#[path = "hosts/memory.rs"]
mod memory;
#[path = "hosts/multiplexing.rs"]
mod multiplexing;
#[path = "hosts/no_instructions.rs"]
mod no_instructions;
#[path = "hosts/placement.rs"]
mod placement;
#[path = "hosts/qemu.rs"]
mod qemu;
#[path = "hosts/quota.rs"]
mod quota;
#[path = "hosts/rules.rs"]
mod rules;
#[path = "hosts/vhost.rs"]
mod vhost;
