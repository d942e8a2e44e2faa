//! Prometheus and Alertmanager (Debian packages `prometheus` and `prometheus-alertmanager`),
//! started by deploy/stack/local, a webhook that receives Alertmanager's messages, and Alertmanager alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value};
use tempfile::TempDir;

use super::exporter::get;
use super::prometheus::Api;
use super::run::eventually;

/// The stack; dropping it stops it with SIGTERM and waits for its exit.
pub(crate) struct Stack {
    child: Child,
    data: PathBuf,
    pub(crate) prometheus: Api,
    alertmanager: String,
}

impl Stack {
    /// Starts the stack and waits until both programs are ready. `sources` are the arguments that
    /// name the scraped targets. Data that is already below `data` is history.
    pub(crate) fn start(data: &Path, sources: &[&str], speed: u32, webhook: &str) -> Self {
        let said = data.join("said");
        let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/stack/local"))
            .args(sources)
            .args(["--webhook", webhook])
            .args(["--speed", &speed.to_string()])
            .args(["--prometheus", "127.0.0.1:0"])
            .args(["--alertmanager", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(File::create(&said).expect("a file"))
            .stderr(File::create(data.join("complaints")).expect("a file"))
            .spawn()
            .expect("bash starts");
        let mut stack = Self {
            child,
            data: data.to_owned(),
            prometheus: Api {
                address: String::new(),
                log: data.join("prometheus.log"),
            },
            alertmanager: String::new(),
        };
        let ready = eventually(|| {
            let said = fs::read_to_string(&said).unwrap_or_default();
            let address = |name: &str| {
                Some(
                    said.split_once(name)?
                        .1
                        .split_once("http://")?
                        .1
                        .lines()
                        .next()?
                        .to_owned(),
                )
            };
            stack.alertmanager = address("Alertmanager")?;
            stack.prometheus.address = address("Prometheus")?;
            stack
                .prometheus
                .log()
                .contains("ready to receive web requests")
                .then_some(())
        });
        assert!(ready.is_some(), "not ready:\n{}", stack.complaints());
        stack
    }

    /// Standard error of the stack, and both logs.
    pub(crate) fn complaints(&self) -> String {
        let files = ["complaints", "alertmanager.log", "prometheus.log"];
        let text = files.map(|file| fs::read_to_string(self.data.join(file)).unwrap_or_default());
        text.join("\n")
    }

    /// Names of the active, not inhibited alerts in Alertmanager.
    pub(crate) fn active(&self) -> Vec<String> {
        let text = get(&self.alertmanager, "/api/v2/alerts?inhibited=false");
        let alerts: Value = serde_json::from_str(&text).expect("JSON");
        let alerts = alerts.as_array().expect("a list").iter();
        let name = |alert: &Value| Some(alert["labels"]["alertname"].as_str()?.to_owned());
        alerts.filter_map(name).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Alertmanager alone, with deploy/stack/alertmanager.yml. Dropping it kills it.
pub(crate) struct Alertmanager {
    child: Child,
    address: String,
    _dir: TempDir,
}

/// An alert that Alertmanager knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether an alert inhibits it.
    pub(crate) is_inhibited: bool,
}

impl Alertmanager {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let child = Command::new("prometheus-alertmanager")
            .arg(concat!(
                "--config.file=",
                env!("CARGO_MANIFEST_DIR"),
                "/deploy/stack/alertmanager.yml"
            ))
            .arg(format!("--storage.path={}", dir.path().display()))
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("Alertmanager starts");
        let mut alertmanager = Self {
            child,
            address: String::new(),
            _dir: dir,
        };
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let address = eventually(|| {
            let log = text();
            let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
            Some(line.split_once("address=")?.1.to_owned())
        });
        alertmanager.address = address.unwrap_or_else(|| panic!("not ready:\n{}", text()));
        alertmanager
    }

    /// Sends it alerts that fire from now on.
    pub(crate) fn fire(&self, alerts: &[BTreeMap<&str, &str>]) {
        let alerts: Vec<_> = alerts
            .iter()
            .map(|labels| json!({ "labels": labels }))
            .collect();
        let body = Value::from(alerts).to_string();
        let mut stream = TcpStream::connect(&self.address).expect("Alertmanager answers");
        let head = format!(
            "POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body.as_bytes()].concat();
        stream.write_all(&request).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// All alerts that it knows.
    pub(crate) fn known(&self) -> Vec<Known> {
        let text = get(&self.address, "/api/v2/alerts");
        let alerts: Value = serde_json::from_str(&text).expect("JSON");
        let alerts = alerts.as_array().expect("a list").iter();
        let known = alerts.map(|alert| Known {
            labels: texts(&alert["labels"]).expect("labels"),
            is_inhibited: alert["status"]["inhibitedBy"] != json!([]),
        });
        known.collect()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One alert of a message to the webhook.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) firing: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Receives Alertmanager's messages for the duration of the test.
pub(crate) struct Webhook {
    address: String,
    taken: Arc<Mutex<Vec<Delivery>>>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let taken = Arc::default();
        let webhook = Self {
            address,
            taken: Arc::clone(&taken),
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Alertmanager sends an interrupted message again.
                let deliveries = take(&stream).unwrap_or_default();
                lock(&taken).extend(deliveries);
            }
        });
        webhook
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// All deliveries so far, in order.
    pub(crate) fn taken(&self) -> Vec<Delivery> {
        lock(&self.taken).clone()
    }
}

fn lock(taken: &Mutex<Vec<Delivery>>) -> std::sync::MutexGuard<'_, Vec<Delivery>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one POST with a Content-Length and answers 200.
fn take(mut stream: &TcpStream) -> Option<Vec<Delivery>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer.as_bytes()).ok()?;
    deliveries(&serde_json::from_slice(&body).ok()?)
}

/// https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
fn deliveries(message: &Value) -> Option<Vec<Delivery>> {
    let alerts = message["alerts"].as_array()?.iter();
    let delivery = |alert: &Value| {
        Some(Delivery {
            firing: alert["status"] == "firing",
            labels: texts(&alert["labels"])?,
            annotations: texts(&alert["annotations"])?,
        })
    };
    alerts.map(delivery).collect()
}

fn texts(object: &Value) -> Option<BTreeMap<String, String>> {
    let pairs = object.as_object()?.iter();
    let pairs = pairs.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    pairs.collect()
}
