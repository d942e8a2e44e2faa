//! A week of history for the alert that compares a VM with its own week: the hourly sums of what the calm run recorded, over
//! and over.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use super::{seconds, Scene};
use crate::prometheus::Series;

/// The series that hours are made of.
const BUSY: &str = "kvm_vm:cpi_busy:rate5m";

/// The series of an hour that rules read over a week (mixin/rules/week.libsonnet), and the power of a minute's CPI that each
/// adds up.
const HOURLY: [(&str, i32); 3] = [
    ("kvm_vm:cpi_hour:minutes", 0),
    ("kvm_vm:cpi_hour:sum", 1),
    ("kvm_vm:cpi_hour:sum_of_squares", 2),
];

/// How many hours there are to be: the week, its offset of an hour, and an hour to spare.
const HOURS: u32 = 7 * 24 + 2;

/// What a calm run recorded once its windows were full, in seconds of a host since its beginning.
const SETTLED: f64 = 480.0;

pub(super) struct Week {
    series: Vec<Series>,
    speed: f64,
}

impl Week {
    /// Everything is recorded under the job and instance of the scene.
    pub(super) fn of(scene: &Scene) -> Self {
        let mut series = scene.prometheus().samples(&format!("{BUSY}[1h]"));
        assert!(!series.is_empty(), "nothing is recorded as {BUSY}");
        for one in &mut series {
            one.samples.retain(|(at, _)| scene.time(*at) > SETTLED);
        }
        series.retain(|one| !one.samples.is_empty());
        Self {
            series,
            speed: f64::from(scene.speed),
        }
    }

    /// Writes blocks that end now, for a Prometheus that is to keep its data in `dir`/prometheus.
    pub(super) fn write(&self, dir: &Path) {
        let file = dir.join("week.om");
        std::fs::write(&file, self.text(seconds(SystemTime::now()))).expect("a file");
        let output = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&file, &dir.join("prometheus")])
            .output()
            .expect("promtool starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn text(&self, end: f64) -> String {
        let mut text = String::new();
        for (name, power) in HOURLY {
            writeln!(text, "# TYPE {name} gauge").expect("a string takes it");
            for series in &self.series {
                let labels = labels(series);
                let mut minutes = series
                    .samples
                    .iter()
                    .map(|(_, cpi)| cpi.powi(power))
                    .cycle();
                for hour in 0..HOURS {
                    let sum: f64 = minutes.by_ref().take(60).sum();
                    let at = end - f64::from(HOURS - hour) * 3600.0 / self.speed;
                    writeln!(text, "{name}{{{labels}}} {sum} {at:.3}").expect("a string takes it");
                }
            }
        }
        text + "# EOF\n"
    }
}

fn labels(series: &Series) -> String {
    let labels = series.labels.iter().filter(|(name, _)| *name != "__name__");
    let labels: Vec<_> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    labels.join(",")
}
