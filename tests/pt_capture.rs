//! Intel PT from kernel memory to /metrics: real traces in images of a perf event's rings, and this
//! machine, which has Intel PT or a reason why not.
#![cfg(feature = "fixtures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::fake_host::perf_image::PerfImage;
use vcpu_exporter::fake_host::{FakeHost, FakeVm, UUID_A, UUID_B};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::pt::{self, Clocks};
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::sources::pt::ring_view::PerfRingView;
use vcpu_exporter::sources::pt::scripted::{whole, ScriptedPt};
use vcpu_exporter::sources::pt::{AuxTrace, Capture, PtPlan, RecordError, Request};
use vcpu_exporter::telemetry::Telemetry;

use crate::support::exporter;
use crate::support::exporter::{Exporter, Exposition};

/// The directory of real traces, if available.
fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pt");
    let dir = std::env::var_os("VCPU_PT_DATA").map_or_else(beside, PathBuf::from);
    let there = dir.join("golden.json").is_file();
    if !there {
        println!("skipped: no traces in {} (VCPU_PT_DATA)", dir.display());
    }
    there.then_some(dir)
}

/// A host with Intel PT and VMs of two vCPUs, watched by the whole pipeline.
struct Watched {
    host: FakeHost,
    vms: Vec<FakeVm>,
    pipeline: Pipeline,
}

impl Watched {
    fn new(config: &str, recorder: ScriptedPt) -> Self {
        let host = FakeHost::new();
        host.cpus(1, 4, 2, 1);
        let pmu = "sys/bus/event_source/devices/intel_pt";
        host.file(format!("{pmu}/type"), "8\n");
        for (term, bits) in [("pt", 0), ("tsc", 10), ("branch", 13)] {
            host.file(format!("{pmu}/format/{term}"), format!("config:{bits}\n"));
        }
        let vms = vec![
            host.qemu(1000, "db", UUID_A, 2),
            host.qemu(2000, "web", UUID_B, 2),
        ];
        for vm in &vms {
            for tid in &vm.vcpus {
                host.set(vm.pid, *tid, |t| t.run = 1);
            }
        }
        let roots = Arc::new(Roots::below(host.root()));
        let config = Config::parse(config).expect("the configuration is right");
        let (telemetry, _) = Telemetry::new();
        let pipeline = Pipeline::with_recorder(
            &config,
            roots,
            Arc::new(Scripted::new()),
            Arc::new(recorder),
            0,
            telemetry,
        );
        Self {
            host,
            vms,
            pipeline: pipeline.expect("the fixture has a topology"),
        }
    }

    /// One turn, which the first pass gives to vCPU 0 of db, and /metrics after it.
    fn look(&mut self) -> Exposition {
        self.pipeline.pass();
        self.pipeline.tick();
        let snapshot = self.pipeline.snapshots().load().expect("a tick has ended");
        let mut text = Vec::new();
        encode_snapshot(Format::Text, &snapshot, snapshot.taken_mono, &mut text);
        Exposition::parse(&String::from_utf8(text).expect("an exposition is text"))
    }
}

const ON: &str = "sources: {pt: {enabled: true}}";

/// A recorder that maps `image`.
fn recorder(image: PerfImage) -> ScriptedPt {
    let image = Mutex::new(image);
    ScriptedPt::new(
        move |_, request: &Request| -> Result<Capture, RecordError> {
            let image = image.lock().expect("no holder panicked");
            let PerfImage { page, data, aux } = &*image;
            Ok(Capture {
                trace: PerfRingView { page, data, aux }.drain(),
                ..whole(Vec::new(), request)
            })
        },
    )
}

const VCPU: [(&str, &str); 2] = [("vm", "db"), ("vcpu", "0")];

#[track_caller]
fn assert_sum(exposition: &Exposition, metric: &str, more: &[(&str, &str)], expected: u64) {
    let labels: Vec<_> = VCPU.iter().chain(more).copied().collect();
    let sum = exposition.sum(metric, &labels);
    // A figure that is 0 in all modes may be absent for unknown mode.
    assert_eq!(sum.unwrap_or(0.0), expected as f64, "{metric}{more:?}");
}

/// The metrics of every file of golden.json, read through rings that wrap, equal the counts of the
/// reference decoders.
#[test]
fn real_traces_arrive_at_metrics_as_they_were_counted() {
    let Some(dir) = data() else { return };
    let golden = std::fs::read_to_string(dir.join("golden.json")).expect("it exists");
    let golden: serde_json::Value = serde_json::from_str(&golden).expect("it is JSON");
    let files = golden.as_object().expect("one entry a file");
    assert!(files.len() >= 5, "{} files", files.len());
    for (name, of_file) in files {
        let bytes = std::fs::read(dir.join(name)).expect("the listed file exists");
        let count = |what: &str| of_file["counts"][what].as_u64().expect("a number");
        // A ring of the smallest sufficient size; the trace starts in the middle of a word near the
        // end.
        let size = bytes.len().next_power_of_two().max(4096);
        let image = PerfImage::new(4096, size, 4096 - 16, size as u64 - 1003);
        image.stretch(&bytes, 0);
        let e = Watched::new(ON, recorder(image)).look();
        assert_sum(&e, "kvm_vcpu_pt_bytes_total", &[], bytes.len() as u64);
        let conditional = "kvm_vcpu_pt_conditional_branches_total";
        assert_sum(&e, conditional, &[], count("bits"));
        assert_sum(&e, conditional, &[("outcome", "taken")], count("taken"));
        assert_sum(&e, "kvm_vcpu_pt_psbs_total", &[], count("psb"));
        assert_sum(&e, "kvm_vcpu_pt_overflows_total", &[], count("ovf"));
        // Cycles while nothing was traced are in the packets but in no mode.
        let summary = pt::summarise(&bytes, &[], &Clocks::default());
        let sides = [summary.guest, summary.host, summary.unknown];
        let cycles = sides.iter().map(|side| side.cycles).sum();
        assert!(cycles <= count("cycsum"), "{name}");
        assert_sum(&e, "kvm_vcpu_pt_cycles_total", &[], cycles);
        assert_sum(&e, "kvm_vcpu_pt_decode_errors_total", &[], count("err"));
        let first = of_file["first_psb"].as_u64().expect("a number");
        assert_sum(&e, "kvm_vcpu_pt_skipped_bytes_total", &[], first);
        let complete = [("result", "complete")];
        assert_sum(&e, "kvm_vcpu_pt_captures_total", &complete, 1);
    }
}

/// A trace in several stretches, the last of which did not fit: cuts and flags are preserved.
#[test]
fn stretches_and_flags_go_along() {
    let Some(dir) = data() else { return };
    let bytes = std::fs::read(dir.join("quipper/aux-cpu0.pt")).expect("it exists");
    let cuts = [4096, 8000];
    let image = PerfImage::new(4096, 16384, 0, 123_456_789);
    image.stretch(&bytes[..cuts[0]], 0);
    image.stretch(&bytes[cuts[0]..cuts[1]], 0);
    image.stretch(&bytes[cuts[1]..], 0x1);
    let e = Watched::new(ON, recorder(image)).look();
    let expected = pt::summarise(&bytes, &cuts, &Clocks::default());
    assert_sum(&e, "kvm_vcpu_pt_bytes_total", &[], bytes.len() as u64);
    for (mode, side) in [
        ("guest", expected.guest),
        ("host", expected.host),
        ("unknown", expected.unknown),
    ] {
        let mode = [("mode", mode)];
        assert_sum(
            &e,
            "kvm_vcpu_pt_indirect_branches_total",
            &mode,
            side.indirect,
        );
        assert_sum(
            &e,
            "kvm_vcpu_pt_async_events_total",
            &mode,
            side.asynchronous,
        );
        let spaces = "kvm_vcpu_pt_address_space_switches_total";
        assert_sum(&e, spaces, &mode, side.address_spaces);
    }
    assert_sum(
        &e,
        "kvm_vcpu_pt_skipped_bytes_total",
        &[],
        expected.skipped_bytes,
    );
    assert_sum(
        &e,
        "kvm_vcpu_pt_captures_total",
        &[("result", "truncated")],
        1,
    );
}

/// A guest that is entered and left, byte by byte: PSB, PIP with NR and TIP, then FUP, PIP without
/// NR and TIP, with cycles in between (SDM volume 3, chapter 33).
fn entries_and_exits(times: usize) -> Vec<u8> {
    let mut trace = [0x02, 0x82].repeat(8);
    // CBR 30, PSBEND.
    trace.extend([0x02, 0x03, 30, 0, 0x02, 0x23]);
    let pip = |v: u8| [0x02, 0x43, v, 0x40, 0, 0, 0, 0];
    // About 3,000 cycles: CYC with 5 and 7 bits.
    let cyc = |n: u16| [0x03 | 0x04 | ((n & 0x1f) << 3) as u8, ((n >> 5) << 1) as u8];
    trace.extend(pip(0));
    for _ in 0..times {
        trace.extend(cyc(1000));
        trace.extend(pip(1));
        trace.extend([0x2d, 0x10, 0x20]); // TIP, 2 bytes of IP
        trace.extend(cyc(3000));
        trace.extend([0x3d, 0x30, 0x20]); // FUP
        trace.extend(pip(0));
        trace.extend([0x2d, 0x50, 0x20]);
    }
    trace
}

#[test]
fn guest_runs_and_host_handling_are_histograms_of_the_vm() {
    let trace = entries_and_exits(10);
    let expected = pt::summarise(&trace, &[], &Clocks::default());
    assert_eq!((expected.entries, expected.exits), (10, 10), "{expected:?}");
    let e = Watched::new(ON, ScriptedPt::of_bytes(trace)).look();
    assert_sum(&e, "kvm_vcpu_pt_entries_total", &[], 10);
    assert_sum(&e, "kvm_vcpu_pt_exits_total", &[("reason", "unknown")], 10);
    let vm = [("vm", "db")];
    for (name, histogram) in [
        ("kvm_vm_pt_guest_run_seconds", &expected.guest_runs),
        ("kvm_vm_pt_host_handling_seconds", &expected.host_handling),
    ] {
        let part = |suffix: &str, labels: &[(&str, &str)]| {
            let labels: Vec<_> = vm.iter().chain(labels).copied().collect();
            e.one(&format!("{name}_{suffix}"), &labels)
        };
        assert_eq!(part("count", &[]), Some(histogram.count() as f64));
        let sum = part("sum", &[]).expect("a sum");
        assert!((sum - histogram.sum() as f64 / 1e9).abs() < 1e-12, "{sum}");
        let buckets: Vec<f64> = e
            .all(&format!("{name}_bucket"), &vm)
            .map(|sample| sample.value)
            .collect();
        assert_eq!(buckets.len(), 12, "{name}");
        assert!(buckets.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(buckets.last(), Some(&(histogram.count() as f64)));
        assert_eq!(part("bucket", &[("le", "+Inf")]), buckets.last().copied());
        assert_eq!(e.all(name, &[]).count(), 0, "no sample without a suffix");
        assert!(e.text.contains(&format!("# TYPE {name} histogram\n")));
    }
    // The other vCPUs had no turn and have no data.
    let others = e.samples.iter().filter(|s| s.name.contains("_pt_"));
    assert!(others.into_iter().all(|s| s.label("vm") == "db"));
    assert_eq!(e.all("kvm_vcpu_pt_bytes_total", &[]).count(), 1);
}

#[test]
fn its_series_are_counted_and_go_with_the_vm() {
    let mut watched = Watched::new(ON, ScriptedPt::of_bytes(entries_and_exits(3)));
    let about = |e: &Exposition| {
        let own = |s: &&exporter::Sample| !s.name.starts_with("kvm_exporter_");
        e.samples.iter().filter(own).count() as f64
    };
    let is_pt = |s: &&exporter::Sample| s.name.contains("_pt_");
    let e = watched.look();
    assert!(e.samples.iter().filter(is_pt).count() > 40, "{}", e.text);
    assert_eq!(e.one("kvm_exporter_series", &[]), Some(about(&e)));
    watched.host.exit(watched.vms[0].pid);
    let e = watched.look();
    assert_eq!(e.samples.iter().filter(is_pt).count(), 0);
    assert_eq!(e.one("kvm_exporter_series", &[]), Some(about(&e)));
}

#[test]
fn the_series_limit_counts_it() {
    let dropped = |trace: Vec<u8>| {
        let count = |limit: usize| format!("{{limits: {{max_series: {limit}}}, {ON}}}");
        let all = Watched::new(&count(100_000), ScriptedPt::of_bytes(trace.clone())).look();
        let series = all.one("kvm_exporter_series", &[]).expect("it exists") as usize;
        let fits = Watched::new(&count(series), ScriptedPt::of_bytes(trace.clone())).look();
        assert_eq!(fits.all("kvm_exporter_dropped_series", &[]).count(), 0);
        let fits_not = Watched::new(&count(series - 1), ScriptedPt::of_bytes(trace)).look();
        (
            series,
            fits_not.all("kvm_exporter_dropped_series", &[]).count(),
        )
    };
    let (with, dropped_with) = dropped(entries_and_exits(3));
    assert!(dropped_with > 0, "one series too many is noticed");
    let (without, _) = dropped(Vec::new());
    assert!(with > without + 40, "{with} and {without}");
}

/// State of the source in /metrics on this machine.
fn state(exposition: &Exposition) -> (String, f64) {
    let labels = [("source", "pt")];
    let mut rows = exposition.all("kvm_exporter_source_up", &labels);
    let row = rows.next().expect("a row of pt");
    (row.label("reason").to_owned(), row.value)
}

fn reason_here() -> Option<String> {
    let reason = PtPlan::read(&Roots::default()).err();
    if reason.is_none() {
        println!("skipped: this machine has Intel PT");
    }
    Some(reason?.code.label().to_owned())
}

#[test]
fn a_machine_without_it_says_why_and_has_no_series_of_it() {
    let Some(reason) = reason_here() else { return };
    let exporter = Exporter::with(&[], ON);
    let e = exporter.scrape_anew();
    assert_eq!(state(&e), (reason, 0.0));
    let of_pt = e.samples.iter().filter(|s| s.name.contains("_pt_"));
    assert_eq!(of_pt.count(), 0, "{}", e.text);
    assert!(exporter.get("/").contains("intel_pt"), "the page says why");
    let off = Exporter::start().scrape_anew();
    assert_eq!(state(&off), ("disabled".to_owned(), 0.0));
}

/// `CapEff` of a process (proc_pid_status(5)).
fn capabilities(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(line.expect("the status has CapEff").trim(), 16).expect("hexadecimal")
}

#[test]
fn cap_ipc_lock_is_kept_while_the_source_is_on_alone() {
    /// linux/capability.h
    const CAP_IPC_LOCK: u64 = 1 << 14;
    if capabilities("self") & CAP_IPC_LOCK == 0 {
        return println!("skipped: CAP_IPC_LOCK is not held here, so none is kept");
    }
    let keeps = |config| {
        let exporter = Exporter::with(&[], config);
        capabilities(&exporter.pid().to_string()) & CAP_IPC_LOCK != 0
    };
    assert!(keeps(ON));
    assert!(!keeps(""));
}

#[test]
fn check_says_why_whether_it_is_on_or_off() {
    let Some(_) = reason_here() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("on.yml");
    std::fs::write(&file, ON).expect("it is written");
    for args in [&["check", "--json"][..], &["check", "--json", "--config"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
        command.args(args);
        if args.contains(&"--config") {
            command.arg(&file);
        }
        let output = command.output().expect("it runs");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = json["findings"].as_array().expect("findings");
        let of_pt: Vec<_> = findings.iter().filter(|f| f["source"] == "pt").collect();
        let text = serde_json::to_string(&of_pt).expect("JSON");
        assert!(text.contains("there is no PMU intel_pt"), "{text}");
        // Whether the source is on does not matter if the machine has no Intel PT.
        assert!(of_pt.iter().all(|f| f["state"] == "absent"), "{text}");
        assert_eq!(of_pt.len(), 1, "{text}");
    }
}

#[test]
fn pt_record_fails_with_the_reason() {
    let Some(reason) = reason_here() else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .args(["pt", "record", "--vm=any", "--vcpu=0"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("({reason})")), "{said}");
    assert!(said.contains("there is no PMU intel_pt"), "{said}");
}

/// Draining an empty ring gives nothing, also through the public interface.
#[test]
fn an_image_is_read_through_the_public_interface() {
    let image = PerfImage::new(4096, 4096, 0, 0);
    let PerfImage { page, data, aux } = &image;
    assert_eq!(
        PerfRingView { page, data, aux }.drain(),
        AuxTrace::default()
    );
}
