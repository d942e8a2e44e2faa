//! A procfs that hides processes, as on hardened hosts: visibility gaps are reported.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `nobody` on Debian and most other distributions.
const NOBODY: u32 = 65_534;

/// A private procfs, unmounted on drop.
struct Procfs(tempfile::TempDir);

impl Procfs {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "proc", "-o", options, "proc"])
            .arg(dir.path())
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(dir))
    }
}

impl Drop for Procfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Output of `list` on this procfs for a user without privileges, from both streams.
fn list_as_nobody(program: &Path, procfs: &Procfs) -> String {
    let output = Command::new(program)
        .arg("list")
        .arg(format!("--path.procfs={}", procfs.0.path().display()))
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn what_a_procfs_hides_is_said_and_not_taken_for_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a procfs");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("vcpu-exporter");
    std::fs::copy(env!("CARGO_BIN_EXE_vcpu-exporter"), &program).expect("a copy");
    for path in [dir.path(), &program] {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, all).expect("it is ours");
    }
    for (options, word) in [("hidepid=2", "hidepid"), ("hidepid=1", "descriptors")] {
        let Some(procfs) = Procfs::mount(options) else {
            println!("skipped: no procfs with {options} can be mounted here");
            return;
        };
        std::fs::set_permissions(procfs.0.path(), std::fs::Permissions::from_mode(0o755)).ok();
        let said = list_as_nobody(&program, &procfs);
        assert!(said.contains("no KVM VM is seen on this host"), "{said}");
        assert!(
            said.contains(word) && said.contains("CAP_SYS_PTRACE"),
            "{said}"
        );
    }
}
