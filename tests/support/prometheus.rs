//! A real Prometheus (Debian package `prometheus`) that scrapes one exporter every second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::exporter::{get, Exposition};
use crate::micro_vm::eventually;

/// The configuration we offer to our users.
const CONFIGURATION: &str = include_str!("../../deploy/prometheus.yml");

/// A running Prometheus. Dropping it kills it.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    dir: TempDir,
}

/// One element of a query's result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Element {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Prometheus {
    /// `None`, with a word why, where it is not installed.
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
            address: String::new(),
            dir,
        };
        let ready = eventually(|| {
            let log = prometheus.log();
            let listening = log.lines().find(|line| line.contains("\"Listening on\""))?;
            prometheus.address = listening.split_once("address=")?.1.to_owned();
            log.contains("ready to receive web requests").then_some(())
        });
        assert!(ready.is_some(), "not ready:\n{}", prometheus.log());
        Some(prometheus)
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// An answer of its HTTP API; fails with its words when it refuses.
    pub(crate) fn api(&self, path: &str) -> Value {
        let text = get(&self.address, &format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["status"], "success", "{path}: {text}");
        answer["data"].clone()
    }

    /// What a query that gives a vector gives now.
    pub(crate) fn query(&self, query: &str) -> Vec<Element> {
        let data = self.api(&format!("query?query={}", encode(query)));
        let elements = data["result"].as_array().expect("a vector");
        elements.iter().map(element).collect()
    }

    /// The same, once it has what is asked for; fails with the last result when it never has.
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

/// Whether a program of the package is here; prints why not.
pub(crate) fn is_installed(program: &str) -> bool {
    let is_there = Path::new("/usr/bin").join(program).exists();
    if !is_there {
        println!("skipped: {program} is not installed (apt-get install prometheus)");
    }
    is_there
}

/// The users' configuration for another target and, to save time, another interval.
fn configuration(target: &str) -> String {
    let replace = |text: &str, old: &str, new: &str| {
        assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
        text.replace(old, new)
    };
    let text = replace(CONFIGURATION, "127.0.0.1:9752", target);
    replace(&text, "scrape_interval: 15s", "scrape_interval: 1s")
}

/// A query in a URL (RFC 3986, 2.1).
fn encode(query: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    query.bytes().map(encode).collect()
}

/// `{"metric": {label: value, …}, "value": [time, "number"]}`
fn element(json: &Value) -> Element {
    let labels = json["metric"].as_object().expect("labels");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let labels = labels
        .iter()
        .map(|(name, value)| (name.clone(), text(value)));
    Element {
        labels: labels.collect(),
        value: text(&json["value"][1]).parse().expect("a number"),
    }
}
