//! Tells the program which commit it is built from, and gives it the runbooks of docs/runbooks.
//!
//! `VCPU_EXPORTER_REVISION` says so where the sources come without git (Dockerfile, packages).
//! Otherwise a release build asks git; a debug build does not, or each commit would compile it anew.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=VCPU_EXPORTER_REVISION");
    let given = std::env::var("VCPU_EXPORTER_REVISION").ok();
    let given = given.filter(|revision| !revision.is_empty());
    let revision = given.or_else(|| is_release().then(commit).flatten());
    let revision = revision.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=VCPU_EXPORTER_REVISION={revision}");
    if let Err(error) = embed_runbooks() {
        println!("cargo::error=the runbooks cannot be embedded: {error}");
    }
}

/// Writes a list of all runbooks, which src/expose/runbooks.rs takes in: `(name, text)` by name.
/// None where the sources come without them.
fn embed_runbooks() -> std::io::Result<()> {
    let from = Path::new(&variable("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    let mut files: Vec<PathBuf> = if from.is_dir() {
        println!("cargo::rerun-if-changed={}", from.display());
        let entries = std::fs::read_dir(&from)?;
        entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    files.retain(|file| file.extension().is_some_and(|end| end == "md"));
    files.sort();
    let name = |file: &PathBuf| {
        file.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    let entries = files.iter().filter_map(|file| Some((name(file)?, file)));
    let entries = entries.map(|(name, file)| format!("({name:?}, include_str!({file:?})),\n"));
    let list = format!(
        "const RUNBOOKS: &[(&str, &str)] = &[\n{}];\n",
        entries.collect::<String>()
    );
    std::fs::write(Path::new(&variable("OUT_DIR")).join("runbooks.rs"), list)
}

/// A variable that cargo sets.
fn variable(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).unwrap_or_default()
}

fn is_release() -> bool {
    std::env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// The commit that is checked out, `-dirty` where files differ from it.
fn commit() -> Option<String> {
    // The sources may lie, unpacked, in the tree of another project.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // Written at every commit and checkout; where it is missing, the next build may be told late.
    println!(
        "cargo::rerun-if-changed={}",
        git(&["rev-parse", "--git-path", "logs/HEAD"])?
    );
    git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
