//! The thread that scans for VMs once per period, so that a slow /proc does not delay a tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Inventory, Scanner};
use crate::host::roots::Roots;
use crate::host::topology::{TopologyError, Watch};
use crate::stop::Stop;
use crate::telemetry::Telemetry;

/// A pass hangs if it takes longer than three periods plus this.
const SLOW_PASS: Duration = Duration::from_secs(2);

/// Keeps the latest inventory up to date.
pub(crate) struct Discovery {
    roots: Arc<Roots>,
    topology: Watch,
    scanner: Scanner,
    newest: Arc<ArcSwap<Inventory>>,
    telemetry: Telemetry,
    opens: u64,
}

impl Discovery {
    /// Starts with an empty inventory.
    ///
    /// # Errors
    /// If the CPU topology cannot be read: no location has a name without it.
    pub(crate) fn new(roots: Arc<Roots>, telemetry: Telemetry) -> Result<Self, TopologyError> {
        Ok(Self {
            topology: Watch::new(roots.clone())?,
            scanner: Scanner::new(roots.clone()),
            roots,
            newest: Arc::default(),
            telemetry,
            opens: 0,
        })
    }

    /// The latest inventory.
    pub(crate) fn newest(&self) -> Arc<ArcSwap<Inventory>> {
        self.newest.clone()
    }

    /// Scans once and publishes the inventory if it changed.
    pub(crate) fn pass(&mut self) {
        let start = Instant::now();
        let inventory = self.scanner.scan(self.topology.refresh());
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

    /// Scans once per period until `stop`.
    pub(crate) fn run(mut self, period: Duration, stop: &Stop) {
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
