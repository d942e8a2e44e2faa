//! A real Prometheus (Debian package `prometheus`) that scrapes one exporter every second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::exporter::{get, Exposition};
use super::run::eventually;

/// The configuration offered to users.
const CONFIGURATION: &str = include_str!("../../deploy/prometheus.yml");

/// A running Prometheus. Dropping it kills it.
pub(crate) struct Prometheus {
    child: Child,
    api: Api,
    _dir: TempDir,
}

/// The HTTP API of a Prometheus.
pub(crate) struct Api {
    pub(crate) address: String,
    /// Path of its log.
    pub(crate) log: PathBuf,
}

/// One element of a query's result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Element {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One series: its labels, and times and values of its samples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) samples: Vec<(f64, f64)>,
}

impl Prometheus {
    /// Starts Prometheus; `None`, with the reason printed, if it is not installed.
    pub(crate) fn start(target: &str) -> Option<Self> {
        if !is_installed("prometheus") {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, configuration(target)).expect("a file");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).expect("a file"))
            .spawn()
            .expect("Prometheus starts");
        let mut prometheus = Self {
            child,
            api: Api {
                address: String::new(),
                log: dir.path().join("log"),
            },
            _dir: dir,
        };
        let ready = eventually(|| {
            let log = prometheus.log();
            let listening = log.lines().find(|line| line.contains("\"Listening on\""))?;
            prometheus.api.address = listening.split_once("address=")?.1.to_owned();
            log.contains("ready to receive web requests").then_some(())
        });
        assert!(ready.is_some(), "not ready:\n{}", prometheus.log());
        Some(prometheus)
    }
}

impl Deref for Prometheus {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Api {
    /// Its whole log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An answer of its HTTP API; fails with the error text if Prometheus refuses.
    pub(crate) fn api(&self, path: &str) -> Value {
        let text = get(&self.address, &format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["status"], "success", "{path}: {text}");
        answer["data"].clone()
    }

    /// The present result of an instant query.
    pub(crate) fn query(&self, query: &str) -> Vec<Element> {
        let data = self.api(&format!("query?query={}", encode(query)));
        let elements = data["result"].as_array().expect("a vector");
        elements.iter().map(element).collect()
    }

    /// The present result of a range selector such as `up[5m]`: the stored samples.
    pub(crate) fn samples(&self, query: &str) -> Vec<Series> {
        matrix(&self.api(&format!("query?query={}", encode(query))))
    }

    /// The values of a query between two times, `step` apart (all in seconds).
    pub(crate) fn range(&self, query: &str, from: f64, to: f64, step: f64) -> Vec<Series> {
        let query = encode(query);
        matrix(&self.api(&format!(
            "query_range?query={query}&start={from}&end={to}&step={step}"
        )))
    }

    /// Like [`Api::query`], repeated until `test` holds; fails with the last result after the
    /// deadline.
    pub(crate) fn until(&self, query: &str, test: impl Fn(&[Element]) -> bool) -> Vec<Element> {
        let mut last = Vec::new();
        let found = eventually(|| {
            last = self.query(query);
            test(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("{query}: {last:#?}\n{}", self.log()))
    }

    /// Its own metrics.
    pub(crate) fn own(&self) -> Exposition {
        Exposition::parse(&get(&self.address, "/metrics"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Element {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Whether a program is installed; prints if not, with its package.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    if !is_there {
        let package = match program {
            "promtool" => "prometheus",
            program => program,
        };
        println!("skipped: {program} is not installed (apt-get install {package})");
    }
    is_there
}

/// The users' configuration with another target and, to save time, another interval.
fn configuration(target: &str) -> String {
    let replace = |text: &str, old: &str, new: &str| {
        assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
        text.replace(old, new)
    };
    let text = replace(CONFIGURATION, "127.0.0.1:9752", target);
    replace(&text, "scrape_interval: 15s", "scrape_interval: 1s")
}

/// Percent-encodes a query (RFC 3986, 2.1).
fn encode(query: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    query.bytes().map(encode).collect()
}

/// `{"metric": {label: value, …}, "value": [time, "number"]}`
fn element(json: &Value) -> Element {
    Element {
        labels: labels(json),
        value: sample(&json["value"]).1,
    }
}

/// `{"result": [{"metric": {label: value, …}, "values": [[time, "number"], …]}, …]}`
fn matrix(data: &Value) -> Vec<Series> {
    assert_eq!(data["resultType"], "matrix", "{data}");
    let series = data["result"].as_array().expect("a matrix").iter();
    let series = series.map(|json| Series {
        labels: labels(json),
        samples: json["values"]
            .as_array()
            .expect("values")
            .iter()
            .map(sample)
            .collect(),
    });
    series.collect()
}

fn labels(json: &Value) -> BTreeMap<String, String> {
    let labels = json["metric"].as_object().expect("labels").iter();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().expect("text").into()));
    labels.collect()
}

/// `[time, "number"]`
fn sample(json: &Value) -> (f64, f64) {
    let value = json[1].as_str().expect("text").parse();
    (json[0].as_f64().expect("a time"), value.expect("a number"))
}
