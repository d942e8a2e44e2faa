//! `pt summarise` and `pt decode` as processes: on recorded traces with contents known from other
//! decoders, and on invalid files.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::pt_data;

fn pt(command: &str) -> Command {
    let mut all = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    all.args(["pt", command]);
    all
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Standard error of a command that failed with status 1.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `pt summarise --json` of valid files.
fn summaries(files: &[&Path]) -> Vec<Value> {
    let output = run(pt("summarise").arg("--json").args(files));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `pt decode` of a valid file.
fn decoded(file: &Path) -> String {
    let output = run(pt("decode").arg(file));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn packets_are_counted_as_other_decoders_count_them() {
    let Some(golden) = pt_data::golden() else {
        return;
    };
    for golden in golden {
        let all = summaries(&[&golden.file]);
        assert_eq!(all.len(), 1);
        let ours = all[0]["packets"].as_object().unwrap();
        let ours = ours.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap()));
        assert_eq!(
            ours.collect::<std::collections::BTreeMap<_, _>>(),
            golden.counts
        );
        assert_eq!(all[0]["stream"], "raw", "{}", golden.name);
        assert_eq!(all[0]["skipped_bytes"], golden.first_psb, "{}", golden.name);
        assert_eq!(
            all[0]["errors"],
            Value::Array(Vec::new()),
            "{}",
            golden.name
        );
    }
}

#[test]
fn addresses_are_those_of_other_decoders() {
    let Some(golden) = pt_data::golden() else {
        return;
    };
    for golden in golden {
        let text = decoded(&golden.file);
        let ips = text.lines().filter_map(|line| line.split_once("  ip "));
        let ips = ips.map(|(_, ip)| u64::from_str_radix(ip, 16).unwrap());
        assert_eq!(pt_data::ip_hash(ips), golden.ip_hash, "{}", golden.name);
    }
}

/// ptdump lines that differ from ours: the dump, the offset, and the reason.
const NOT_AS_PTDUMP: [(&str, &str, &str); 3] = [
    (
        "dump-all-packets",
        "0000000000000000",
        "we skip bytes before the first PSB",
    ),
    (
        "skd007",
        "0000000000000019",
        "erratum SKD007 (an OVF within a CYC) affects only the CPUs that ptdump was run for",
    ),
    (
        "skz84",
        "000000000000001b",
        "we recognize a TMA that erratum SKZ84 changed; ptdump calls it invalid",
    ),
];

/// libipt's own `ptdump` on its own conformance streams. Most of its dumps have a third column
/// about time or the address, which ours does not have.
#[test]
fn every_line_begins_as_ptdumps_does() {
    let Some(files) = pt_data::conformance() else {
        return;
    };
    let mut compared = 0;
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let expected = file.with_file_name(format!("{name}-ptdump.exp"));
        let expected = std::fs::read_to_string(expected).unwrap();
        let text = decoded(&file);
        for (offset, theirs) in expected.lines().filter_map(ptdump_line) {
            let ours = text.lines().find_map(|line| line.strip_prefix(offset));
            let ours = ours.unwrap_or_default().split("  ip ").next();
            let ours = ours.unwrap_or_default().split_whitespace();
            let ours: Vec<&str> = ours.map(|word| word.trim_end_matches(',')).collect();
            if ours.is_empty() || !theirs.starts_with(&ours) {
                wrong.push((name.to_owned(), offset.to_owned()));
            }
            compared += 1;
        }
    }
    let expected = NOT_AS_PTDUMP.map(|(name, offset, _)| (name.to_owned(), offset.to_owned()));
    assert_eq!(wrong, expected);
    assert!(compared > 1000, "{compared}");
}

/// Offset and words of a `ptdump` line; some dumps have no offsets.
fn ptdump_line(line: &str) -> Option<(&str, Vec<&str>)> {
    let (offset, rest) = line.split_at_checked(16)?;
    let is_offset = offset.bytes().all(|byte| byte.is_ascii_hexdigit()) && rest.starts_with(' ');
    // libipt reads PWRE's HW from another bit than perf and we do.
    let words = rest.split_whitespace().filter(|word| *word != "hw");
    is_offset.then(|| {
        (
            offset,
            words.map(|word| word.trim_end_matches(',')).collect(),
        )
    })
}

#[test]
fn both_forms_of_perf_data_have_a_trace_for_each_cpu() {
    let (Some([file, piped]), Some(golden)) = (pt_data::perf_data(), pt_data::golden()) else {
        return;
    };
    let all = summaries(&[&file, &piped]);
    let of = |key: &str| all.iter().map(|s| s[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("stream"), ["cpu 0", "cpu 3", "cpu 0", "cpu 3"]);
    assert_eq!(of("bytes"), [12240, 137_728, 76_400, 68_192]);
    // One less than the AUX records of that CPU in `perf script -D`.
    assert_eq!(of("cuts"), [0, 8, 0, 6]);
    for (n, name) in ["quipper/aux-cpu0.pt", "quipper/aux-cpu3.pt"]
        .iter()
        .enumerate()
    {
        let golden = golden.iter().find(|golden| golden.name == *name).unwrap();
        for (count, expected) in &golden.counts {
            assert_eq!(all[n]["packets"][count], *expected, "{name} {count}");
        }
    }
    for summary in all {
        assert_eq!(summary["skipped_bytes"], 0);
        assert_eq!(summary["trailing_bytes"], 0);
        assert_eq!(summary["errors"], Value::Array(Vec::new()));
        assert_eq!(summary["losses"]["truncated"], 0);
        // Recorded with TSC and without CYC, on a machine without guests.
        assert!(summary["guest"].is_null());
        assert!(summary["host"]["cycles"].is_null());
    }
    let text = decoded(&piped);
    let headings: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# cpu"))
        .collect();
    assert_eq!(headings, ["# cpu 0, 76400 bytes", "# cpu 3, 68192 bytes"]);
    assert_eq!(text.matches("\n# tracing restarted\n").count(), 6);
}

/// A trace for tests without data: PSB, PSBEND, a guest's branches and an error.
fn small_trace() -> Vec<u8> {
    let psb = [0x02, 0x82].repeat(8);
    let psbend = [0x02, 0x23];
    let branches = [0b1010_1100];
    let error = [0x05];
    [&psb[..], &psbend, &pip(true), &branches, &error].concat()
}

#[test]
fn the_packets_of_a_small_trace() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("small.pt");
    std::fs::write(&file, small_trace()).unwrap();
    expect_test::expect![[r#"
        0000000000000000  psb
        0000000000000010  psbend
        0000000000000012  pip        1ee40000, nr
        000000000000001a  tnt.8      .!.!!.
        000000000000001b  error      unknown packet
        000000000000001b  skipped    1 bytes
    "#]]
    .assert_eq(&decoded(&file));
}

/// PIP of one CR3 for a guest or the host.
fn pip(guest: bool) -> [u8; 8] {
    [0x02, 0x43, u8::from(guest), 0x40, 0xee, 0x01, 0x00, 0x00]
}

/// CYC: 5 bits in the first byte, 7 in each further byte.
fn cyc(cycles: u64) -> Vec<u8> {
    let mut bytes = vec![0b11 | (cycles as u8 & 0x1f) << 3];
    let mut rest = cycles >> 5;
    while rest > 0 {
        // "More follows" is bit 2 of the first byte and bit 0 of the others.
        let more = if bytes.len() == 1 { 4 } else { 1 };
        *bytes.last_mut().unwrap() |= more;
        bytes.push((rest as u8 & 0x7f) << 1);
        rest >>= 7;
    }
    bytes
}

/// One vCPU of a 3.2 GHz core with event trace. Each run is (microseconds in the guest,
/// microseconds of KVM's handling, exit reason).
fn guest_trace(runs: &[(u64, u64, u8)]) -> Vec<u8> {
    const CYCLES: u64 = 3200;
    let tip = [0x2d, 0x00, 0x10];
    let mut trace = [0x02, 0x82].repeat(8);
    // CBR, a PSB status of the host, PSBEND.
    trace.extend([0x02, 0x03, 0x20, 0x00]);
    trace.extend(pip(false));
    // FUP: tracing is on.
    trace.extend([0x3d, 0x00, 0x10]);
    trace.extend([0x02, 0x23]);
    for (guest, host, reason) in runs {
        trace.extend(pip(true));
        trace.extend(tip);
        trace.extend([0b1010_1100; 40]);
        trace.extend(cyc(guest * CYCLES));
        // EVD with the reason, CFE of a VM exit with its FUP, PIP, TIP.
        trace.extend([0x02, 0x53, 0x02, *reason, 0, 0, 0, 0, 0, 0, 0]);
        trace.extend([0x02, 0x13, 0x88, 0x00]);
        trace.extend([0x3d, 0x00, 0x20]);
        trace.extend(pip(false));
        trace.extend(tip);
        trace.extend([0b0000_1110; 20]);
        trace.extend(cyc(host * CYCLES));
    }
    trace
}

const HLT: u8 = 12;
const IO_INSTRUCTION: u8 = 30;
const EPT_VIOLATION: u8 = 48;

/// The example of docs/PT.md.
#[test]
fn the_page_of_a_guest_is_the_one_the_documentation_explains() {
    let dir = tempfile::tempdir().unwrap();
    let runs = [
        [(12, 2, EPT_VIOLATION)].repeat(9),
        [(40, 3, EPT_VIOLATION)].repeat(5),
        [(90, 25, IO_INSTRUCTION)].repeat(3),
        [(200, 400, HLT)].repeat(2),
    ];
    std::fs::write(dir.path().join("vcpu0.pt"), guest_trace(&runs.concat())).unwrap();
    let page = run(pt("summarise").arg("vcpu0.pt").current_dir(&dir));
    assert!(page.status.success(), "{page:?}");
    let page = String::from_utf8(page.stdout).unwrap();
    let documentation = include_str!("../docs/PT.md");
    assert!(documentation.contains(page.trim_end()), "{page}");
    let object = &summaries(&[&dir.path().join("vcpu0.pt")])[0];
    assert_eq!(object["exit_reasons"]["48"], 14);
    // Each run but the first is timed from its entry to its exit.
    let runs = &object["histograms"]["guest_runs"];
    assert_eq!(runs["count"], 19);
    assert_eq!(runs["sum_nanoseconds"], 978_000);
    let shortest = serde_json::json!({"le": 16_384, "count": 9});
    assert_eq!(runs["buckets"][0], shortest);
    assert_eq!(object["guest"]["cycles"], 978 * 3200);
    assert_eq!(object["guest"]["nanoseconds"], 978_000);
}

#[test]
fn a_bad_file_is_told_and_the_others_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("text"), "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    std::fs::write(path("perf.data"), "PERFILE2\x68\0\0\0\0\0\0\0").unwrap();
    std::fs::write(path("good.pt"), small_trace()).unwrap();
    let bad = ["empty", "text", "perf.data", "missing", "."];
    let output = run(pt("summarise")
        .args(["--json", "--"])
        .args(bad)
        .arg("good.pt")
        .current_dir(&dir));
    let said = refused(&output);
    let lines: Vec<&str> = said.lines().collect();
    let expected = [
        "vcpu-exporter: cannot summarize empty: the file is empty",
        "vcpu-exporter: cannot summarize text: neither a perf.data file nor an Intel PT trace",
        "vcpu-exporter: cannot summarize perf.data: at offset 0x10: the file ends within its header",
        "vcpu-exporter: cannot read missing: No such file or directory",
        "vcpu-exporter: cannot read .: Is a directory",
    ];
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    let done: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0]["file"], "good.pt");
    for file in bad {
        let output = run(pt("decode").arg(file).current_dir(&dir));
        assert!(output.stdout.is_empty(), "{output:?}");
        assert_eq!(refused(&output).lines().count(), 1);
    }
}

#[test]
fn a_perf_data_file_that_was_cut_off_says_where() {
    let Some([file, piped]) = pt_data::perf_data() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut");
    // The header of one file contains its length; the other ends in the middle of its last trace.
    for (file, expected) in [
        (file, "the file ends within its records"),
        (
            piped,
            "at offset 0x1c890: the file ends within a part of the trace",
        ),
    ] {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(&cut, &bytes[..bytes.len() - 20_000]).unwrap();
        let said = refused(&run(pt("summarise").arg(&cut)));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_reader_that_leaves_early_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("long.pt");
    // Far more lines than a pipe buffers.
    let pads = vec![0; 1 << 20];
    std::fs::write(&file, [[0x02, 0x82].repeat(8), pads].concat()).unwrap();
    let mut child = pt("decode")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    assert_eq!(first, "0000000000000000  psb\n");
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
