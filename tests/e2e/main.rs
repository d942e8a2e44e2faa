//! The exporter as its users have it: a process that is started, scraped, looked at and stopped,
//! beside the real programs it meets in production. What the machine lacks is said and skipped.
#![cfg(feature = "demo")]
// Clippy knows tests by their attribute, not their helpers.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/alertmanager.rs"]
mod alertmanager;
#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/exporter.rs"]
mod exporter;
#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/micro_vm.rs"]
mod micro_vm;
#[path = "../support/otlp_series.rs"]
mod otlp_series;
#[path = "../support/page_host.rs"]
mod page_host;
#[path = "../support/playwright.rs"]
mod playwright;
#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/pt_data.rs"]
mod pt_data;
#[path = "../support/real_vms.rs"]
mod real_vms;
#[path = "../support/rotel.rs"]
mod rotel;
#[path = "../support/run.rs"]
mod run;
#[path = "../support/snapshots.rs"]
mod snapshots;
#[path = "../support/victoria.rs"]
mod victoria;

mod alerting;
mod otlp;
mod page;
mod pt;
mod scraped;
mod service;
mod vms;

use run::alone;
