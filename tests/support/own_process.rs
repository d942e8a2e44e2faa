//! Tests whose figures are those of a whole process.
#![allow(clippy::expect_used)]

use std::process::Command;

const INSIDE: &str = "VCPU_EXPORTER_TEST_IN_ITS_OWN_PROCESS";

/// Runs `body` as the only test of a process, whose output and failure are those of this test.
/// `test` is the test's name with its module.
pub(crate) fn run(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let program = std::env::current_exe().expect("the path of this program");
    let child = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("another process of this program");
    let output = String::from_utf8_lossy(&child.stdout);
    let ran = output.contains("test result: ok. 1 passed");
    assert!(
        ran && child.status.success(),
        "{output}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    // Indented: tests/run adds up the results at the start of a line.
    for line in output.lines() {
        println!("  {line}");
    }
}
