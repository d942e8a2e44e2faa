//! Emulated hosts: machines with hardware that this one lacks, running the exporter and micro-VMs.
//!
//! A [`Machine`] boots, runs a shell script (with the functions of `functions.sh`) and powers off;
//! the script's output in sections is returned as a [`Console`]. A machine that does not reach the
//! end of its script fails the test with the end of its console.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use vcpu_exporter::demo::protocol::{Reply, Stats};

use crate::exposition::Exposition;

/// Seconds after which a machine is stopped, far above the 10 to 60 s of a script: beside other
/// work a machine that counts instructions gets a tenth of a CPU and less.
const TIMEOUT: &str = "1200";

/// Kernel messages after which a machine is booted once more: seen in a few boots on QEMU's
/// emulation of SVM, cause unknown (kernel/watchdog.c, oops_end of arch/x86/kernel/dumpstack.c).
const KERNEL_FAILED: [&str; 2] = [
    "BUG: soft lockup",
    "Kernel panic - not syncing: Fatal exception",
];

/// Lines of the console in a failure.
const TAIL: usize = 40;

/// How time passes on an emulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Four nanoseconds per instruction, whatever its real time: the PMU counts instructions, and
    /// two runs are alike. All counters count the instructions of all CPUs, so everything runs on
    /// the first one, and idle time takes none.
    Icount,
    /// Real time, with one thread per CPU: the PMU counts only cycles.
    Free,
}

/// An emulated host with two NUMA nodes of two CPUs each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    arch: &'static str,
    clock: Clock,
    has_qemu: bool,
}

impl Machine {
    /// Neoverse N1 with a PMU of seven counters; KVM without vCPUs in debugfs.
    pub(crate) fn arm64(clock: Clock) -> Self {
        Self {
            arch: "arm64",
            clock,
            has_qemu: false,
        }
    }

    /// The same with `qemu-system-aarch64` and its libraries, which take longer to boot.
    pub(crate) fn arm64_with_qemu(clock: Clock) -> Self {
        Self {
            has_qemu: true,
            ..Self::arm64(clock)
        }
    }

    /// AMD with SVM, so that KVM reports exits by reason; no PMU, cgroup v2. Linux 6.1.
    pub(crate) fn amd64() -> Self {
        Self {
            arch: "amd64",
            clock: Clock::Free,
            has_qemu: false,
        }
    }

    /// The same with Linux 6.12.
    pub(crate) fn amd64_6_12() -> Self {
        Self {
            arch: "amd64-6.12",
            ..Self::amd64()
        }
    }

    /// Boots, runs the script in a shell, and returns its output.
    ///
    /// Fails the test if the machine does not reach the end of the script or the script's status is
    /// not 0. If the kernel locks up or takes a fatal exception ([`KERNEL_FAILED`]), the
    /// machine is booted once more; a second failure fails the test.
    #[track_caller]
    pub(crate) fn run(self, script: &str) -> Console {
        let (mut console, mut status) = self.boot(script);
        if console.status.is_none() && KERNEL_FAILED.iter().any(|line| console.text.contains(line))
        {
            println!(
                "the kernel of {self:?} failed, once more:\n{}",
                console.tail()
            );
            (console, status) = self.boot(script);
        }
        match console.status {
            Some(0) => console,
            Some(script) => panic!("the script ended with {script}:\n{}", console.tail()),
            None => panic!("{self:?} ended early ({status}):\n{}", console.tail()),
        }
    }

    fn boot(self, script: &str) -> (Console, ExitStatus) {
        let dir = tempfile::tempdir().expect("a directory");
        let initrd = self.initrd(&dir, script);
        let console = dir.path().join("console");
        let status = self
            .qemu(&initrd)
            .stdin(Stdio::null())
            .stdout(File::create(&console).expect("the console's file is made"))
            .stderr(Stdio::inherit())
            .status()
            .expect("timeout(1) runs");
        let text = std::fs::read(&console).expect("the console is kept");
        (Console::parse(&String::from_utf8_lossy(&text)), status)
    }

    /// The output of [`prepare`] with the script added. The kernel unpacks several archives one
    /// after another (Documentation/driver-api/early-userspace/buffer-format.rst).
    fn initrd(self, dir: &TempDir, script: &str) -> PathBuf {
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).expect("a directory is made");
        std::fs::write(etc.join("script"), script).expect("the script is written");
        let path = dir.path().join("initrd");
        let mut initrd = std::fs::read(cache().join(self.arch).join("initrd")).expect("prepared");
        if self.has_qemu {
            initrd.extend(std::fs::read(cache().join("guest-qemu/archive")).expect("prepared"));
        }
        initrd.extend(archive(dir.path(), "etc/script"));
        std::fs::write(&path, initrd).expect("the initial file system is written");
        path
    }

    fn qemu(self, initrd: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", TIMEOUT]);
        // A kernel that locks up for a minute panics, which ends QEMU, instead of running until the
        // timeout (Documentation/admin-guide/kernel-parameters.txt).
        let mut append =
            "panic=-1 softlockup_panic=1 watchdog_thresh=30 quiet cryptomgr.notests".to_owned();
        if self.arch == "arm64" {
            let qemu = cache().join("qemu/usr");
            command.arg(qemu.join("bin/qemu-system-aarch64"));
            command.arg("-L").arg(qemu.join("share/qemu"));
            command.args(["-machine", "virt,virtualization=on,gic-version=3"]);
            command.args(["-cpu", "neoverse-n1"]);
            append += " console=ttyAMA0";
        } else {
            command.args(["qemu-system-x86_64", "-machine", "pc", "-cpu", "max"]);
            append += " console=ttyS0";
        }
        match self.clock {
            Clock::Icount => {
                command.args(["-accel", "tcg,thread=single"]);
                command.args(["-icount", "shift=2,sleep=off"]);
                append += " hosts.cpumask=1";
            }
            Clock::Free => {
                command.args(["-accel", "tcg,thread=multi"]);
            }
        }
        command
            .args(["-smp", "4,sockets=2", "-m", "2G"])
            .args(["-object", "memory-backend-ram,id=m0,size=1G"])
            .args(["-object", "memory-backend-ram,id=m1,size=1G"])
            .args(["-numa", "node,nodeid=0,cpus=0-1,memdev=m0"])
            .args(["-numa", "node,nodeid=1,cpus=2-3,memdev=m1"])
            .args(["-numa", "dist,src=0,dst=1,val=20"])
            .args(["-nodefaults", "-nographic", "-no-reboot"])
            .args(["-serial", "stdio", "-monitor", "none"])
            .arg("-kernel")
            .arg(cache().join(self.arch).join("kernel"))
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &append]);
        command
    }
}

/// The file as an archive for the kernel.
fn archive(dir: &Path, file: &str) -> Vec<u8> {
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "--create", "--format=newc"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cpio starts");
    let mut names = cpio.stdin.take().expect("it reads names");
    writeln!(names, "{file}").expect("it takes them");
    drop(names);
    let mut archive = Vec::new();
    let mut out = cpio.stdout.take().expect("it writes an archive");
    out.read_to_end(&mut archive).expect("it writes it");
    assert!(cpio.wait().expect("it ends").success());
    archive
}

/// Directory of `prepare`'s output; `prepare` has run when this returns.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let prepared = Command::new(root.join("tests/hosts/prepare"))
            .status()
            .expect("tests/hosts/prepare runs");
        assert!(prepared.success(), "tests/hosts/prepare: {prepared}");
        let cache = std::env::var_os("VCPU_EXPORTER_HOSTS_CACHE");
        root.join(cache.as_deref().unwrap_or(OsStr::new("target/hosts")))
    })
}

/// Output of a script by section.
#[derive(Debug, Default)]
pub(crate) struct Console {
    text: String,
    sections: Vec<(String, String)>,
    status: Option<i32>,
}

impl Console {
    fn parse(text: &str) -> Self {
        let text = text.replace('\r', "");
        let mut console = Self::default();
        let mut open: Option<(String, String)> = None;
        for line in text.lines() {
            match (line.strip_prefix("@@ "), &mut open) {
                (Some("end"), _) => console.sections.extend(open.take()),
                (Some(mark), None) => match mark.strip_prefix("status ") {
                    Some(status) => console.status = status.parse().ok(),
                    None => open = Some((mark.to_owned(), String::new())),
                },
                (_, Some((_, body))) => {
                    body.push_str(line);
                    body.push('\n');
                }
                (None, None) => {}
            }
        }
        Self { text, ..console }
    }

    /// The sections of this name, in order.
    pub(crate) fn sections(&self, name: &str) -> std::vec::IntoIter<&str> {
        let named = self.sections.iter().filter(|(n, _)| n == name);
        let bodies: Vec<&str> = named.map(|(_, body)| body.as_str()).collect();
        bodies.into_iter()
    }

    /// The only section of this name.
    #[track_caller]
    pub(crate) fn section(&self, name: &str) -> &str {
        let mut sections = self.sections(name);
        match (sections.next(), sections.next()) {
            (Some(section), None) => section,
            (None, _) => panic!("no section {name} in:\n{}", self.tail()),
            (_, Some(_)) => panic!("more than one section {name}"),
        }
    }

    /// The only section of this name, as a scrape.
    #[track_caller]
    pub(crate) fn scrape(&self, name: &str) -> Exposition {
        Exposition::parse(self.section(name))
    }

    /// The only section of this name, as a micro-VM's answer to `stats`.
    #[track_caller]
    pub(crate) fn stats(&self, name: &str) -> Stats {
        parse_stats(self.section(name))
    }

    /// All sections of this name, as answers to `stats`.
    pub(crate) fn all_stats(&self, name: &str) -> Vec<Stats> {
        self.sections(name).map(parse_stats).collect()
    }

    fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

#[track_caller]
fn parse_stats(section: &str) -> Stats {
    match serde_json::from_str(section) {
        Ok(Reply::Stats(stats)) => stats,
        other => panic!("no answer to stats but {section:?}: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_by_name() {
        let text = "early\r\n@@ a\r\n1\r\n2\r\n@@ end\r\nloose\r\n@@ a\n3\n@@ end\n@@ status 0\n";
        let console = Console::parse(text);
        assert_eq!(console.sections("a").collect::<Vec<_>>(), ["1\n2\n", "3\n"]);
        assert_eq!(console.status, Some(0));
        assert!(console.tail().ends_with("@@ status 0"));
    }

    #[test]
    fn a_console_that_breaks_off_has_no_status() {
        let console = Console::parse("@@ a\n@@ status 0\nnever ends");
        assert_eq!(console.status, None);
        assert_eq!(console.sections("a").count(), 0);
    }
}
