//! A real terminal, headless: one tmux server (Debian package `tmux`) per test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;

use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

use super::run::eventually;

/// A terminal that runs a command. Dropping it ends both.
pub(crate) struct Tmux {
    dir: TempDir,
}

impl Tmux {
    /// Runs a shell command in a terminal of 80 columns and 24 rows, and keeps its final screen.
    /// `None`, with the reason printed, if there is no tmux.
    pub(crate) fn start(name: &str, command: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let tmux = Self { dir };
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: tmux is not installed (apt-get install tmux)");
            return None;
        }
        // With job control, like an interactive shell. The shell must not exit, because that would
        // end the server and clear the screen.
        let command = format!("set -m; {command}; sleep 1000");
        let session = ["new-session", "-d", "-x", "80", "-y", "24", "-s", name];
        let args: Vec<&str> = session.into_iter().chain(["sh", "-c", &command]).collect();
        tmux.run(&args);
        Some(tmux)
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.dir.path().join("socket"))
            // Without the configuration of the user who runs the tests, and in UTF-8 with any
            // locale.
            .args(["-f", "/dev/null", "-u"])
            .args(args)
            .env("TERM", "xterm-256color")
            .env_remove("TMUX")
            .output()
            .expect("tmux runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).expect("tmux speaks UTF-8")
    }

    /// Presses keys, named as in tmux.
    pub(crate) fn keys(&self, keys: &[&str]) {
        for key in keys {
            self.run(&["send-keys", key]);
        }
    }

    /// The value of a tmux format.
    pub(crate) fn ask(&self, format: &str) -> String {
        self.run(&["display-message", "-p", format])
            .trim_end()
            .to_owned()
    }

    /// The screen, once it contains this text; fails with the screen after the deadline.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) -> String {
        let mut screen = String::new();
        let found = eventually(|| {
            screen = self.run(&["capture-pane", "-p"]);
            screen.contains(text).then_some(())
        });
        assert!(found.is_some(), "no {text:?} in:\n{screen}");
        screen
    }

    /// Sends a signal to the shell's child with this name.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        let shell = self.ask("#{pane_pid}");
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        let child = children.split_whitespace().find(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with(comm.trim()) && !comm.trim().is_empty()
        });
        let pid = child.expect("it runs").parse().ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.dir.path().join("socket");
        let kill = Command::new("tmux")
            .arg("-S")
            .arg(socket)
            .arg("kill-server")
            .output();
        drop(kill);
    }
}
