//! What is measured is true: the exporter on emulated hosts with a PMU, KVM and two NUMA nodes,
//! against truths that do not come from what it reads.
//!
//! `cargo test --test hosts` runs these, and plain `cargo test` leaves them out: they take minutes
//! and the packages that `tests/hosts/prepare` names. `docs/TRUTH.md` has what they found.
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
