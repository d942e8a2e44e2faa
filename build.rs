//! Tells the program which commit it is built from.
//!
//! `VCPU_EXPORTER_REVISION` says so where the sources come without git (Dockerfile, packages).
//! Otherwise a release build asks git; a debug build does not, or each commit would compile it anew.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=VCPU_EXPORTER_REVISION");
    let given = std::env::var("VCPU_EXPORTER_REVISION").ok();
    let given = given.filter(|revision| !revision.is_empty());
    let revision = given.or_else(|| is_release().then(commit).flatten());
    let revision = revision.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=VCPU_EXPORTER_REVISION={revision}");
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
