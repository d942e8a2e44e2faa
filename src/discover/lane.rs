//! The inventory lane: a thread of its own that looks once a period who runs, so that a slow
//! /proc never holds up a tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Inventory, Scanner};
use crate::host::roots::Roots;
use crate::host::topology::{TopologyError, Watch};
use crate::stop::Stop;
use crate::telemetry::Telemetry;

/// A pass that takes three periods and so long hangs.
const SLOW_PASS: Duration = Duration::from_secs(2);

/// Keeps the newest inventory.
pub struct Lane {
    roots: Arc<Roots>,
    topology: Watch,
    scanner: Scanner,
    newest: Arc<ArcSwap<Inventory>>,
    telemetry: Telemetry,
    opens: u64,
}

impl Lane {
    /// A lane over these roots, with an empty inventory.
    ///
    /// # Errors
    /// When the CPU topology cannot be read: without it no place has a name.
    pub fn new(roots: Arc<Roots>, telemetry: Telemetry) -> Result<Self, TopologyError> {
        Ok(Self {
            topology: Watch::new(roots.clone())?,
            scanner: Scanner::new(roots.clone()),
            roots,
            newest: Arc::default(),
            telemetry,
            opens: 0,
        })
    }

    /// Where the newest inventory is found.
    pub fn newest(&self) -> Arc<ArcSwap<Inventory>> {
        self.newest.clone()
    }

    /// Looks once who runs, and publishes what changed.
    pub fn pass(&mut self) {
        let start = Instant::now();
        let inventory = self.scanner.scan(self.topology.look());
        if !Arc::ptr_eq(&inventory, &self.newest.load()) {
            self.newest.store(inventory);
        }
        let opens = self.roots.opens();
        let t = &self.telemetry;
        t.inventory_passes.inc();
        t.inventory_duration.observe(start.elapsed().as_secs_f64());
        t.host_file_opens.inc_by(opens - self.opens);
        t.process.refresh();
        self.opens = opens;
    }

    /// Passes once a period until told to stop.
    pub fn run(mut self, period: Duration, stop: &Stop) {
        let limit = period * 3 + SLOW_PASS;
        let heartbeats = &self.telemetry.heartbeats;
        let heartbeat = heartbeats.add("inventory", limit, true);
        loop {
            let start = Instant::now();
            heartbeat.step("inventory");
            self.pass();
            heartbeat.rest();
            if stop.wait_until(start + period) {
                return;
            }
        }
    }
}
