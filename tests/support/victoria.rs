//! VictoriaMetrics, a database that receives OTLP and assigns Prometheus names. tests/receivers
//! downloads it.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::exporter::get;
use super::otlp_series::All;
use super::run::{eventually, free_address};

const PROGRAM: &str = "target/victoria/usr/bin/victoria-metrics";

/// A running database; dropping it stops it.
pub(crate) struct Victoria {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Drop for Victoria {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Victoria {
    /// Starts it; `None`, with the reason printed, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM);
        if !program.exists() {
            println!("skipped: there is no {PROGRAM} (tests/run fetches it)");
            return None;
        }
        let address = free_address().to_string();
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new(program)
            .arg(format!("-storageDataPath={}", dir.path().display()))
            .arg(format!("-httpListenAddr={address}"))
            .arg("-opentelemetry.usePrometheusNaming")
            .arg("-memory.allowedBytes=64MiB")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let victoria = Self {
            child: child.expect("VictoriaMetrics starts"),
            address,
            _dir: dir,
        };
        let listens = || TcpStream::connect(&victoria.address).is_ok().then_some(());
        eventually(listens).expect("VictoriaMetrics answers");
        Some(victoria)
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// URL for OTLP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/opentelemetry", self.address)
    }

    /// All its series by name and labels, without the resource's labels: the latest value of each.
    pub(crate) fn all(&self, of_resource: &[&str]) -> All {
        get(&self.address, "/internal/force_flush");
        let text = get(
            &self.address,
            "/api/v1/export?match%5B%5D=%7B__name__%21%3D%22%22%7D",
        );
        let mut all = All::new();
        for line in text.lines() {
            let series: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let labels = series["metric"].as_object().expect("labels");
            let mut labels: std::collections::BTreeMap<String, String> = labels
                .iter()
                .map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned()))
                .collect();
            let name = labels.remove("__name__").expect("a name");
            labels.retain(|label, _| !of_resource.contains(&label.as_str()));
            if let Some(le) = labels.get_mut("le") {
                let bound: f64 = le.parse().expect("a bound");
                *le = bound.to_string();
            }
            let values = series["values"].as_array().expect("values");
            let value = values.last().and_then(serde_json::Value::as_f64);
            all.insert((name, labels), value.expect("a number"));
        }
        all
    }
}
