//! A real browser (Debian package `chromium`), headless.

use std::path::Path;
use std::process::Command;

use super::run::DEADLINE;

const CHROMIUM: &str = "/usr/bin/chromium";

/// A page loaded in the browser.
#[derive(Debug)]
pub(crate) struct Page {
    /// The document after loading, as HTML.
    pub(crate) dom: String,
    /// Console messages: resources that were blocked, not found or failed.
    pub(crate) console: Vec<String>,
}

/// Loads a page; `None`, with the reason printed, if there is no browser.
pub(crate) fn load(url: &str) -> Option<Page> {
    if !Path::new(CHROMIUM).exists() {
        println!("skipped: {CHROMIUM} is not installed (apt-get install chromium)");
        return None;
    }
    let profile = tempfile::tempdir().expect("a directory");
    let output = Command::new("timeout")
        .arg(DEADLINE.as_secs().to_string())
        .args([CHROMIUM, "--headless", "--dump-dom"])
        // Required for root; the browser loads only our own page.
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args([
            "--no-first-run",
            "--disable-sync",
            "--disable-component-update",
        ])
        .args(["--disable-background-networking", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .output()
        .expect("chromium starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let console = errors.lines().filter(|line| line.contains("CONSOLE"));
    Some(Page {
        dom: String::from_utf8(output.stdout).expect("UTF-8"),
        console: console.map(str::to_owned).collect(),
    })
}
