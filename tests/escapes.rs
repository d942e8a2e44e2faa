//! File contents and paths in the program's errors: without control characters for a terminal, and
//! without text of a file that is not a configuration.

use std::process::Command;

/// Standard error of `list` with this configuration file.
fn error(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.yml");
    std::fs::write(&file, text).expect("the file is written");
    list(&format!("--config={}", file.display()))
}

fn list(argument: &str) -> String {
    let mut list = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    let output = list.args(["list", argument]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_ne!(error, "", "{argument}");
    error.trim_end().to_owned()
}

#[test]
fn control_characters_of_files_and_paths_are_escaped_in_errors() {
    for error in [
        error("log:\n  \"lev\\e[31mel\": warn\n"),
        error("log:\n  level: \"a\\e[2Jb\"\n"),
        error("web:\n  listen_address: \"1\\n2\\u202e3\"\n"),
        list("--config=/x\x1b[31m\ny"),
        list("--path.sysfs=/x\x1b[31m\ny"),
    ] {
        let obeyed = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!error.contains(obeyed), "{error:?}");
    }
}

#[test]
fn line_of_a_file_that_is_no_configuration_is_not_repeated() {
    for text in ["root:$6$s3cr3t:19000:0\nbin:*:19000:0\n", "s3cr3t\n"] {
        let error = error(text);
        assert!(error.contains("expected a mapping of sections"), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}
