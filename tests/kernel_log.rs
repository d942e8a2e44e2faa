//! The kernel log of a fixture host, followed by the whole program: lines of old and new kernels
//! count as the same kind.
#![cfg(feature = "fixtures")]

use std::fs::OpenOptions;
use std::io::Write;

use crate::support::exporter::{Exporter, Exposition};
use vcpu_exporter::fake_host::FakeHost;

const METRIC: &str = "kvm_host_kernel_log_lines_total";

/// An exporter that follows the log of its own host.
struct Followed {
    host: FakeHost,
    exporter: Exporter,
    logged: u32,
}

impl Followed {
    fn new() -> Self {
        let host = FakeHost::new();
        host.cpus(2, 4, 2, 1).xeon_server();
        let root = |name: &str, dir: &str| format!("--path.{name}={}", host.path(dir).display());
        let roots = [
            root("procfs", "proc"),
            root("sysfs", "sys"),
            root("devfs", "dev"),
            root("runfs", "run"),
        ];
        let roots = roots.each_ref().map(String::as_str);
        let exporter = Exporter::with(&roots, "sources: {kernel_log: {period: 1s}}");
        exporter.until(|e| lines(e, "kvm") == Some(0.0));
        Self {
            host,
            exporter,
            logged: 1,
        }
    }

    /// Logs a line, waits until all lines are counted, and returns the counts of these kinds.
    fn log(&mut self, text: &str, kinds: [&str; 2]) -> [Option<f64>; 2] {
        self.logged += 1;
        let kmsg = self.host.path("dev/kmsg");
        let mut kmsg = OpenOptions::new().append(true).open(kmsg).unwrap();
        writeln!(kmsg, "4,{n},{n},-;{text}", n = self.logged).unwrap();
        let all = Some(f64::from(self.logged - 1));
        let told = self.exporter.until(|e| e.sum(METRIC, &[]) == all);
        kinds.map(|kind| lines(&told, kind))
    }
}

fn lines(exposition: &Exposition, kind: &str) -> Option<f64> {
    exposition.one(METRIC, &[("kind", kind)])
}

#[test]
fn throttling_is_counted_on_every_kernel_and_is_no_machine_check() {
    let mut followed = Followed::new();
    for (n, text) in [
        "CPU9: Package temperature is above threshold, cpu clock is throttled (total events = 12)",
        "mce: CPU4: Core temperature is above threshold, cpu clock is throttled (total events = 1)",
        "mce: CPU4: Core temperature above threshold, cpu clock throttled (total events = 1)",
    ]
    .into_iter()
    .enumerate()
    {
        let counts = followed.log(text, ["throttle", "machine_check"]);
        assert_eq!(counts, [Some(n as f64 + 1.0), Some(0.0)], "{text}");
    }
}

#[test]
fn unknown_msr_is_counted_on_every_kernel_and_is_no_other_line_of_kvm() {
    let mut followed = Followed::new();
    for (n, text) in [
        "kvm [3357]: vcpu2, guest rIP: 0xffffffff81a6d5f4 unhandled wrmsr: 0xc0011020 data 0x0",
        "kvm: ignored rdmsr: 0x1a2 data 0x0",
        "kvm_amd: kvm [1825]: vcpu0, guest rIP: 0xfffff808df463d29 Unhandled WRMSR(0xc0010115) = 0x0",
        "kvm_intel: kvm [2817]: vcpu0, guest rIP: 0xffffffffb4c93b34 Unhandled RDMSR(0xc0010140)",
    ]
    .into_iter()
    .enumerate()
    {
        let counts = followed.log(text, ["kvm_msr", "kvm"]);
        assert_eq!(counts, [Some(n as f64 + 1.0), Some(0.0)], "{text}");
    }
}
