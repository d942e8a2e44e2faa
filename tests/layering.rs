//! Imports follow the data flow backwards: checks the `crate::` paths in every source file against
//! the stages that its stage may use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each stage, and the other stages it may use.
const STAGES: &[(&str, &[&str])] = &[
    ("metric", &[]),
    ("host", &[]),
    ("config", &[]),
    ("pt", &[]),
    ("stop", &[]),
    ("telemetry", &["metric"]),
    ("sys", &[]),
    ("fake_host", &[]),
    ("discover", &["host", "config", "stop", "sys", "telemetry"]),
    (
        "engine",
        &[
            "metric",
            "host",
            "config",
            "stop",
            "sys",
            "telemetry",
            "discover",
        ],
    ),
    (
        "sources",
        &[
            "metric",
            "host",
            "config",
            "stop",
            "sys",
            "telemetry",
            "discover",
            "engine",
            "pt",
        ],
    ),
    (
        "snapshot",
        &[
            "metric",
            "host",
            "config",
            "telemetry",
            "discover",
            "engine",
            "sources",
        ],
    ),
    (
        "diagnosis",
        &[
            "metric",
            "host",
            "telemetry",
            "engine",
            "sources",
            "snapshot",
        ],
    ),
    (
        "expose",
        &[
            "metric",
            "host",
            "config",
            "telemetry",
            "engine",
            "snapshot",
            "diagnosis",
        ],
    ),
    (
        "demo",
        &[
            "metric",
            "config",
            "engine",
            "sources",
            "snapshot",
            "fake_host",
        ],
    ),
];

/// The command line connects all stages.
const EDGE: &[&str] = &["cli", "main", "lib"];

#[test]
fn imports_point_backwards_along_the_flow() {
    let mut wrong = Vec::new();
    let files = source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "the sources are not where they were");
    for (stage, file) in files {
        if EDGE.contains(&stage.as_str()) {
            continue;
        }
        let Some((_, may_know)) = STAGES.iter().find(|(name, _)| *name == stage) else {
            wrong.push(format!("{} belongs to no stage", file.display()));
            continue;
        };
        let text = std::fs::read_to_string(&file).expect("a source file is text");
        for known in imports(&text) {
            if known != stage && !may_know.contains(&known.as_str()) {
                wrong.push(format!("{} uses crate::{known}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// First segments of all `crate::` paths outside of comments and unit tests.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(first_segment)
            .collect::<Vec<_>>()
    })
    .filter(|segment| !segment.is_empty())
    .collect()
}

fn first_segment(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

/// `forbid(unsafe_code)` in `pt.rs` would check this, except for this one file.
#[test]
fn intel_pt_is_read_without_unsafe_but_for_avx2() {
    for (stage, file) in source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&file).expect("a source file is text");
        let may = ["pt.rs", "pt/avx2.rs"]
            .iter()
            .any(|may| file.ends_with(may));
        let forbids = text.contains("\n#![forbid(unsafe_code)]");
        assert!(stage != "pt" || may || forbids, "{}", file.display());
    }
}

/// Every source file and its stage: the first part of its path.
fn source_files(src: &Path) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut dirs = vec![src.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("src is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if is_source(&path) {
                let below = path.strip_prefix(src).expect("it is below src");
                let first = below.components().next().expect("it has a name");
                let stage = Path::new(first.as_os_str()).with_extension("");
                files.push((stage.display().to_string(), path.clone()));
            }
        }
    }
    files
}

/// Unit tests may use any stage.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".rs") && !name.ends_with("tests.rs")
}

#[test]
fn the_test_sees_a_wrong_import() {
    assert!(imports("use crate::expose::http;\n// crate::cli").contains("expose"));
    assert!(!imports("/// crate::expose").contains("expose"));
}
