//! rotel, an independent OpenTelemetry collector that logs every data point. tests/run installs it
//! from PyPI.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::otlp_series::{Kind, Point};
use super::run::{eventually, free_address};

/// Where tests/run installs it.
const VENV: &str = "target/rotel";

/// A running collector; dropping it stops it.
pub(crate) struct Rotel {
    child: Child,
    dir: TempDir,
    /// `HOST:PORT` of gRPC and of HTTP.
    pub(crate) grpc: String,
    pub(crate) http: String,
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, in any bin directory of the environment's Python.
fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(VENV);
    let pythons = fs::read_dir(root.join("lib")).ok()?.flatten();
    let agents = pythons.map(|python| python.path().join("site-packages/rotel/rotel-agent"));
    agents.into_iter().find(|agent| agent.exists())
}

impl Rotel {
    /// Starts it; `None`, with the reason printed, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            println!("skipped: rotel is not in {VENV} (tests/run installs it)");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let log = || File::create(dir.path().join("log")).expect("a file");
        let (grpc, http) = (free_address().to_string(), free_address().to_string());
        let child = Command::new(program)
            .args(["start", "--exporter", "blackhole"])
            .args(["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http])
            .args([
                "--debug-log",
                "metrics",
                "--debug-log-verbosity",
                "detailed",
            ])
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(File::create(dir.path().join("errors")).expect("a file"))
            .spawn();
        let child = child.expect("rotel starts");
        let mut rotel = Self {
            child,
            dir,
            grpc,
            http,
        };
        let ready = eventually(|| {
            let ended = rotel.child.try_wait().expect("it is ours").is_some();
            let listens = std::net::TcpStream::connect(&rotel.http).is_ok();
            (ended || listens).then_some(listens)
        });
        if ready != Some(true) {
            let errors = fs::read_to_string(rotel.dir.path().join("errors")).unwrap_or_default();
            println!("skipped: rotel does not run here: {}", errors.trim());
            return None;
        }
        Some(rotel)
    }

    /// Its whole log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// All logged requests.
    pub(crate) fn requests(&self) -> Vec<Vec<Point>> {
        let log = self.log();
        let requests = log.split("ResourceMetrics #").skip(1);
        requests.map(request).collect()
    }
}

/// The data points of one request.
fn request(text: &str) -> Vec<Point> {
    let mut all: Vec<Point> = Vec::new();
    let mut metric = Reading::default();
    let mut lines = text.lines().peekable();
    let mut in_point = false;
    while let Some(line) = lines.next() {
        if line.starts_with("Metric #") {
            (metric, in_point) = (Reading::default(), false);
        } else if line.starts_with("NumberDataPoints #")
            || line.starts_with("HistogramDataPoints #")
        {
            all.push(metric.point());
            in_point = true;
        } else if let Some(pair) = line.strip_prefix("     -> ") {
            let (key, value) = pair
                .split_once(": ")
                .unwrap_or((pair.trim_end_matches(':'), ""));
            match (in_point, value.strip_prefix("Str(")) {
                (false, _) => metric.take(key, value),
                (true, Some(value)) => {
                    // A value can have several lines.
                    let mut value = value.to_owned();
                    while !value.ends_with(')') {
                        value.push('\n');
                        value.push_str(lines.next().expect("a value ends"));
                    }
                    value.pop();
                    let point = all.last_mut().expect("a point");
                    point.attributes.insert(key.to_owned(), value);
                }
                (true, None) => panic!("{line}"),
            }
        } else if let (true, Some((key, value))) = (in_point, line.split_once(": ")) {
            let point = all.last_mut().expect("a point");
            let number = || value.parse().unwrap_or_else(|_| panic!("{line}"));
            match key {
                "StartTimestamp" => point.start = number() as u64,
                "Timestamp" => point.time = number() as u64,
                "Value" => {
                    point.value = number();
                    point.is_int = value.parse::<i64>().is_ok();
                }
                "Sum" => point.value = number(),
                "Count" => {}
                _ if key.starts_with("ExplicitBounds #") => point.bounds.push(number()),
                _ if key.starts_with("Buckets #") => {
                    let count = value.trim_start_matches("Count: ");
                    point.counts.push(count.parse().expect("a count"));
                }
                _ => panic!("{line}"),
            }
        } else if in_point && line.starts_with("Buckets #") {
            let count = line.rsplit(' ').next().unwrap_or_default();
            let point = all.last_mut().expect("a point");
            point.counts.push(count.parse().expect("a count"));
        }
    }
    all
}

/// A metric as far as parsed.
#[derive(Default)]
struct Reading {
    name: String,
    unit: String,
    help: String,
    data: String,
    cumulative: bool,
}

impl Reading {
    fn take(&mut self, key: &str, value: &str) {
        match key {
            "Name" => self.name = value.to_owned(),
            "Unit" => self.unit = value.to_owned(),
            "Description" => self.help = value.to_owned(),
            "DataType" => self.data = value.to_owned(),
            "AggregationTemporality" => self.cumulative = value.ends_with("CUMULATIVE"),
            "IsMonotonic" => assert_eq!(value, "true", "{}", self.name),
            _ => {}
        }
    }

    fn point(&self) -> Point {
        let cumulative = self.cumulative;
        Point {
            name: self.name.clone(),
            unit: self.unit.clone(),
            help: self.help.clone(),
            kind: match self.data.as_str() {
                "Gauge" => Kind::Gauge,
                "Sum" => Kind::Sum { cumulative },
                "Histogram" => Kind::Histogram { cumulative },
                other => panic!("{}: {other}", self.name),
            },
            attributes: BTreeMap::new(),
            start: 0,
            time: 0,
            value: 0.0,
            is_int: false,
            counts: Vec::new(),
            bounds: Vec::new(),
        }
    }
}
