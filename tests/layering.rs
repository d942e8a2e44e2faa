//! Imports follow the data flow backwards: checks the `crate::` paths in every source file against
//! the stages that its stage may use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::imports::paths;

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
    let paths = paths(text);
    let paths = paths.iter().filter_map(|path| path.strip_prefix("crate::"));
    let first = paths.filter_map(|path| path.split("::").next());
    first
        .filter(|first| !first.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A module and the modules in it may name each other; modules beside each other may not.
#[test]
fn files_do_not_import_each_other_in_circles() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |file: &Path| {
        let below = file
            .strip_prefix(&src)
            .expect("it is below src")
            .with_extension("");
        let names = below.iter().map(|name| name.to_string_lossy());
        let names: Vec<_> = names.filter(|name| name != "lib").collect();
        names.join("::")
    };
    let files: BTreeMap<String, PathBuf> = source_files(&src)
        .into_iter()
        .map(|(_, file)| (module(&file), file))
        .collect();
    let is_inside =
        |one: &str, other: &str| one.starts_with(&format!("{other}::")) || other.is_empty();
    let mut uses = BTreeMap::new();
    for (name, file) in &files {
        let text = std::fs::read_to_string(file).expect("a source file is text");
        let used = paths(&text)
            .into_iter()
            .filter_map(|path| file_of(&path, name, &files));
        let used =
            used.filter(|used| used != name && !is_inside(used, name) && !is_inside(name, used));
        uses.insert(name.clone(), used.collect::<BTreeSet<_>>());
    }
    // What no remaining file uses, or what uses none, is in no circle.
    loop {
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        let in_circle = |name: &String, of_name: &BTreeSet<String>| {
            used.contains(name) && of_name.iter().any(|other| uses.contains_key(other))
        };
        let left: BTreeMap<_, _> = uses
            .iter()
            .filter(|(name, of_name)| in_circle(name, of_name))
            .map(|(name, of_name)| (name.clone(), of_name.clone()))
            .collect();
        if left.len() == uses.len() {
            break;
        }
        uses = left;
    }
    let left: BTreeSet<_> = uses.keys().collect();
    assert!(left.is_empty(), "these files use each other: {left:?}");
}

/// The file that a path of `module` leads to: the deepest that there is.
fn file_of(path: &str, module: &str, files: &BTreeMap<String, PathBuf>) -> Option<String> {
    let mut place: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
    for name in path.split("::") {
        match name {
            "crate" => place.clear(),
            "super" => drop(place.pop()),
            "self" | "" => {}
            name => place.push(name),
        }
    }
    while !place.is_empty() && !files.contains_key(&place.join("::")) {
        place.pop();
    }
    (!place.is_empty()).then(|| place.join("::"))
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
    let after_a_test = "#[cfg(test)]\nfn x() {}\nuse crate::expose::http;\n";
    assert!(imports(after_a_test).contains("expose"));
}
