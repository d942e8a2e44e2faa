//! A real browser (Debian package `chromium`), driven by playwright-core, which tests/run installs
//! from npm into target.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::run::DEADLINE;

/// Where tests/run installs the package.
const PACKAGE: &str = "target/browser";

/// A running script.
pub(crate) struct Script {
    child: Child,
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Script {
    /// Runs tests/e2e/browser/page.mjs on a page; `None`, with the reason printed, if it cannot
    /// run.
    pub(crate) fn start(url: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = root.join(PACKAGE);
        let missing = [
            (
                PathBuf::from("/usr/bin/chromium"),
                "apt-get install chromium",
            ),
            (PathBuf::from("/usr/bin/node"), "apt-get install nodejs npm"),
            (
                package.join("node_modules/playwright-core"),
                "tests/run installs it",
            ),
        ];
        if let Some((what, how)) = missing.iter().find(|(what, _)| !what.exists()) {
            println!("skipped: {} is not there ({how})", what.display());
            return None;
        }
        let pictures = package.join("pictures");
        std::fs::create_dir_all(&pictures).expect("a directory");
        let child = Command::new("timeout")
            // The script's own timeout ends first and names what did not happen.
            .arg((5 * DEADLINE.as_secs()).to_string())
            .arg("/usr/bin/node")
            .arg(root.join("tests/e2e/browser/page.mjs"))
            .arg(url)
            .args([&package, &pictures])
            .arg(DEADLINE.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        Some(Self { child })
    }

    /// Performs the actions that the script requests until it ends, and requires its success.
    pub(crate) fn follow(mut self, mut act: impl FnMut(&str)) {
        let said = self.child.stdout.take().expect("its output is a pipe");
        for line in BufReader::new(said).lines() {
            let line = line.expect("UTF-8");
            println!("{line}");
            if let Some(what) = line.strip_prefix("do ") {
                act(what);
            }
        }
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}");
    }
}
