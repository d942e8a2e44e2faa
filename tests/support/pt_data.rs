//! Recorded Intel PT traces, which are not part of the repository: in `$VCPU_PT_DATA`, else in
//! `../shared/data/pt` beside it. `golden.json` there has the contents of each trace, on which
//! three other decoders agree.
// Each test program uses a part of this module.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Contents of one raw stream according to the other decoders.
#[derive(Debug)]
pub(crate) struct Golden {
    /// Path within the data; names the stream in messages.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Offset of the first PSB.
    pub(crate) first_psb: usize,
    /// Packets by kind, under the field names of `pt::Packets`.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Hash of all IPs: see [`ip_hash`].
    pub(crate) ip_hash: u64,
}

/// Directory of the data. `None`, with the reason printed, if it is missing.
pub(crate) fn dir() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pt");
    let dir = std::env::var_os("VCPU_PT_DATA").map_or_else(beside, PathBuf::from);
    if !dir.join("golden.json").is_file() {
        println!(
            "skipped: no Intel PT traces in {} (VCPU_PT_DATA)",
            dir.display()
        );
        return None;
    }
    Some(dir)
}

/// Every entry of golden.json. `None`, with the reason printed, if there is no data.
pub(crate) fn golden() -> Option<Vec<Golden>> {
    let dir = dir()?;
    let text = fs::read_to_string(dir.join("golden.json")).expect("golden.json is readable");
    let all: BTreeMap<String, Value> = serde_json::from_str(&text).expect("golden.json is JSON");
    assert!(!all.is_empty(), "golden.json is empty");
    Some(
        all.into_iter()
            .map(|entry| golden_of(&dir, entry))
            .collect(),
    )
}

fn golden_of(dir: &Path, (name, entry): (String, Value)) -> Golden {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{name}: {value}"));
    let counts = entry["counts"].as_object().expect("counts");
    Golden {
        file: dir.join(&name),
        first_psb: usize::try_from(number(&entry["first_psb"])).expect("an offset"),
        counts: counts.iter().map(|(k, v)| (k.clone(), number(v))).collect(),
        ip_hash: number(&entry["ip_hash"]),
        name,
    }
}

/// The raw conformance streams of libipt, ascending by name; each has the expected dump of libipt's
/// `ptdump` in `NAME-ptdump.exp` beside it. `None`, with the reason printed, if there is no data.
pub(crate) fn conformance() -> Option<Vec<PathBuf>> {
    let dir = dir()?.join("libipt_ptt");
    let entries = fs::read_dir(&dir).expect("the folder is readable");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|e| e == "pt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no traces", dir.display());
    Some(files)
}

/// A whole perf.data with two streams, and one written to a pipe.
pub(crate) fn perf_data() -> Option<[PathBuf; 2]> {
    let dir = dir()?.join("quipper");
    Some(["perf.data.intel_pt-4.14", "perf.data.piped.intel_pt-4.14"].map(|name| dir.join(name)))
}

/// `ip_hash` of golden.json over the IPs of all TIP, TIP.PGE, TIP.PGD and FUP packets, in order
/// from the first PSB. The rule is not documented there; this one reproduces the hash of every
/// entry.
pub(crate) fn ip_hash(ips: impl IntoIterator<Item = u64>) -> u64 {
    ips.into_iter()
        .fold(0u64, |hash, ip| hash.rotate_left(1) ^ ip)
}
