//! Tests of any machine: the library on given input, the program's one-shot commands, and the files
//! of this repository. They need no privileges and change nothing.
//!
//! There are few test programs, because each contains all of the exporter: this one,
//! tests/program.rs, tests/footprint.rs, tests/e2e and tests/hosts.rs.
//! `cargo test --test library golden::` runs the tests of one file.
// Clippy knows tests by their attribute, not their helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

/// What several tests share.
mod support {
    pub(crate) mod dashboards;
    pub(crate) mod exposition;
    pub(crate) mod imports;
    pub(crate) mod oracle;
    pub(crate) mod promtool;
    pub(crate) mod pt_checks;
    pub(crate) mod pt_data;
    pub(crate) mod pt_encoder;
    pub(crate) mod pt_fuzz_input;
    pub(crate) mod ptdump;
    pub(crate) mod snapshots;
}

mod alerts;
mod config;
mod dashboards;
mod dashboards_lint;
mod docs;
mod escapes;
mod exposition_oracle;
mod fake_host;
mod golden;
mod layering;
mod mixin;
mod notifications;
mod perf_attr;
mod pt_cli;
mod pt_conformance;
mod pt_equality;
mod pt_fuzz_corpus;
mod recognition;
mod runbooks;
mod stack;
mod synthetic;
mod topology;
