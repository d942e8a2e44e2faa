//! Bounds of a counter's delta between two scrapes, from the guest's own count.
//!
//! The guest is stopped during a scrape (`sandwich` of `functions.sh`), so its work between two
//! scrapes is bounded by two nearly equal deltas of its own count.

use crate::exposition::Exposition;
use crate::machine::Console;
use vcpu_exporter::demo::protocol::Stats;

/// A scrape with the guest's own counts before and after it.
struct Sandwich {
    before: Stats,
    scrape: Exposition,
    after: Stats,
}

impl Sandwich {
    fn of(console: &Console, name: &str) -> Self {
        Self {
            before: console.stats(&format!("{name}.before")),
            scrape: console.scrape(name),
            after: console.stats(&format!("{name}.after")),
        }
    }
}

/// Two sandwiches, named `first` and `last` in the script.
pub(crate) struct Span {
    vm: &'static str,
    first: Sandwich,
    last: Sandwich,
}

impl Span {
    /// The span of the micro-VM's first vCPU.
    pub(crate) fn of(console: &Console, vm: &'static str) -> Self {
        Self::named(console, vm, "first", "last")
    }

    /// The span of two sandwiches with these names.
    pub(crate) fn named(console: &Console, vm: &'static str, first: &str, last: &str) -> Self {
        Self {
            vm,
            first: Sandwich::of(console, first),
            last: Sandwich::of(console, last),
        }
    }

    /// Delta of a metric of the vCPU, summed over all locations.
    #[track_caller]
    pub(crate) fn delta(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let id = [("vm", self.vm), ("vcpu", "0")];
        let labels: Vec<_> = id.iter().chain(labels).copied().collect();
        let sum = |scrape: &Exposition| {
            let sum = scrape.sum(metric, &labels);
            sum.unwrap_or_else(|| panic!("no {metric}{labels:?} in:\n{}", scrape.text))
        };
        sum(&self.last.scrape) - sum(&self.first.scrape)
    }

    /// Least and most delta of one of the guest's own counts.
    pub(crate) fn truth(&self, of: impl Fn(&Stats) -> f64) -> (f64, f64) {
        let least = of(&self.last.before) - of(&self.first.after);
        let most = of(&self.last.after) - of(&self.first.before);
        (least, most)
    }

    /// Turns of the guest's loop.
    pub(crate) fn turns(&self) -> (f64, f64) {
        self.truth(|stats| f64::from(stats.vcpus[0].turns))
    }

    /// Seconds of CPU time of the vCPU's thread, including guest time, by the thread's own clock.
    pub(crate) fn cpu_seconds(&self) -> (f64, f64) {
        self.truth(|stats| stats.vcpus[0].cpu_ns as f64 / 1e9)
    }
}

/// Requires a measured value to be between two true ones, and prints its distance from their
/// middle.
#[track_caller]
pub(crate) fn assert_within(what: &str, measured: f64, truth: (f64, f64), tolerance: f64) {
    let (least, most) = truth;
    let off = measured / ((least + most) / 2.0) - 1.0;
    println!(
        "{what}: {measured}, truth {least} to {most}: off by {:+.3} %",
        off * 100.0
    );
    assert!(
        least * (1.0 - tolerance) <= measured && measured <= most * (1.0 + tolerance),
        "{what}: {measured} is not between {least} and {most} by {} %",
        tolerance * 100.0
    );
    // Bounds far apart would prove nothing.
    assert!(
        most - least <= most * tolerance,
        "{what}: truth is only known to lie between {least} and {most}"
    );
}
