//! A week of history for the alert that compares a VM with its own week: what the calm run recorded, over and over.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use super::{seconds, Scene};
use crate::prometheus::Series;

/// The series that rules look at over a week.
const NAMES: [&str; 2] = ["kvm_vm:cpi:rate5m", "kvm_vm:cpi_busy:rate5m"];

/// How much there is to be: the week, its offset of an hour, and an hour to spare, in seconds of a host.
const LENGTH: f64 = (7 * 24 + 2) as f64 * 3600.0;

/// Samples this far apart, in seconds of a host: rules take them every five minutes.
const STEP: f64 = 150.0;

/// What a calm run recorded once its windows were full, in seconds of a host since its beginning.
const SETTLED: f64 = 480.0;

pub(super) struct Week {
    series: Vec<Series>,
    speed: f64,
}

impl Week {
    /// Everything is recorded under the job and instance of the scene.
    pub(super) fn of(scene: &Scene) -> Self {
        let mut series = Vec::new();
        for name in NAMES {
            let all = scene.prometheus().samples(&format!("{name}[1h]"));
            assert!(!all.is_empty(), "nothing is recorded as {name}");
            series.extend(all);
        }
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
        let count = (LENGTH / STEP) as u32;
        let mut text = String::new();
        for name in NAMES {
            writeln!(text, "# TYPE {name} gauge").expect("a string takes it");
            for series in self
                .series
                .iter()
                .filter(|series| series.label("__name__") == name)
            {
                let labels = labels(series);
                let values = series.samples.iter().map(|(_, value)| value).cycle();
                for (n, value) in (0..count).zip(values) {
                    let at = end - f64::from(count - n) * STEP / self.speed;
                    writeln!(text, "{name}{{{labels}}} {value} {at:.3}")
                        .expect("a string takes it");
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
