//! Real QEMU guests, and a real domain in a libvirt without a daemon.
//!
//! libvirt's QEMU driver runs the domain inside virsh (`qemu:///embed`): its state is below a
//! directory of the test. Tests print what the machine lacks and are skipped.

// Clippy recognizes tests by their attribute, not their helpers; each test program uses a part of
// this module.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use super::run::{eventually, unique};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A QEMU guest. Dropping it kills it.
pub(crate) struct Guest(Child);

impl Guest {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it and waits for its exit.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether QEMU can run guests on KVM here; prints why not.
pub(crate) fn qemu_works() -> bool {
    let kvm = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    let lacks = if !cfg!(target_arch = "x86_64") {
        "these guests are for x86-64".to_owned()
    } else if let Err(error) = kvm {
        format!("/dev/kvm: {error}")
    } else if !Path::new(QEMU).exists() {
        format!("{QEMU} is not installed (apt-get install qemu-system-x86)")
    } else {
        return true;
    };
    println!("skipped: {lacks}");
    false
}

/// A guest whose firmware runs and finds nothing to boot.
pub(crate) fn qemu(args: &[&str]) -> Guest {
    // Some hosts refuse the MSR of arch-capabilities to nested guests.
    let cpu = ["-cpu", "host,-arch-capabilities", "-accel", "kvm"];
    let no_devices = ["-display", "none", "-nodefaults", "-no-user-config"];
    let child = Command::new(QEMU)
        .args(cpu)
        .args(["-m", "32"])
        .args(no_devices)
        .args(args)
        .stdin(Stdio::null())
        .spawn();
    Guest(child.expect("QEMU starts"))
}

/// Number of vCPU descriptors of a process.
pub(crate) fn vcpus_held(pid: u32) -> usize {
    let Ok(dir) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    let links = dir.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("anon_inode:kvm-vcpu:"))
        .count()
}

/// libvirt's QEMU driver in virsh, with its files below a directory, and one domain.
pub(crate) struct Libvirt {
    virsh: Child,
    domain: String,
    asked: usize,
    dir: TempDir,
}

impl Libvirt {
    /// Starts virsh; `None`, with the reason printed, if it cannot run.
    pub(crate) fn start() -> Option<Self> {
        if let Err(lacks) = embedded_driver_works() {
            println!("skipped: {lacks}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("embed");
        fs::create_dir_all(root.join("etc")).expect("a directory");
        fs::write(root.join("etc/qemu.conf"), QEMU_CONF).expect("libvirt's configuration");
        fs::create_dir_all(dir.path().join("run")).expect("a directory");
        std::os::unix::fs::symlink(root.join("run"), dir.path().join("run/libvirt"))
            .expect("a link");
        let output = |name| File::create(dir.path().join(name)).expect("a file");
        let virsh = Command::new("virsh")
            .arg("-c")
            .arg(format!("qemu:///embed?root={}", root.display()))
            .stdin(Stdio::piped())
            .stdout(output("answers"))
            .stderr(output("errors"))
            .spawn();
        Some(Self {
            virsh: virsh.expect("virsh starts"),
            domain: unique("domain"),
            asked: 0,
            dir,
        })
    }

    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// The directory that replaces /run and contains this libvirt's state.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// PID of the domain while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let name = format!("libvirt/qemu/{}.pid", self.domain);
        let text = fs::read_to_string(self.run_dir().join(name)).ok()?;
        text.trim().parse().ok()
    }

    /// Creates the domain: 2 vCPUs of at most 3, with OpenStack's metadata.
    pub(crate) fn create(&mut self, uuid: &str) {
        let file = self.dir.path().join("domain.xml");
        let xml = DOMAIN.replace("NAME", &self.domain).replace("UUID", uuid);
        fs::write(&file, xml).expect("the domain's description");
        self.command(&format!("create {}", file.display()));
    }

    /// Sends a command line to virsh without waiting.
    pub(crate) fn command(&mut self, line: &str) {
        let stdin = self.virsh.stdin.as_mut().expect("virsh listens");
        writeln!(stdin, "{line}").expect("virsh listens");
    }

    /// Sends a command line to virsh and returns its whole output.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.asked += 1;
        let mark = |which| format!("{which} of answer {}", self.asked);
        let (begin, end) = (mark("begin"), mark("end"));
        self.command(&format!("echo {begin}\n{line}\necho {end}"));
        let answer = eventually(|| {
            let text = self.said("answers");
            text.lines().find(|line| *line == end)?;
            // virsh repeats each command line after its prompt.
            let said = text.lines().filter(|line| !line.starts_with("virsh # "));
            let answer = said.skip_while(|line| *line != begin).skip(1);
            let lines: Vec<&str> = answer.take_while(|line| *line != end).collect();
            Some(lines.join("\n"))
        });
        answer.unwrap_or_else(|| {
            let [text, errors] = ["answers", "errors"].map(|file| self.said(file));
            panic!("no answer to {line}: {text}\n{errors}")
        })
    }

    fn said(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // If a test failed before the end: the domain outlives a killed virsh.
        if let Some(mut stdin) = self.virsh.stdin.take() {
            let _ = writeln!(stdin, "destroy {}\nquit", self.domain);
        }
        eventually(|| self.virsh.try_wait().transpose());
        let _ = self.virsh.kill();
        let _ = self.virsh.wait();
        if thread::panicking() {
            for file in ["answers", "errors"] {
                println!("virsh {file}:\n{}", self.said(file));
            }
        }
    }
}

/// Whether libvirt's QEMU driver can run in virsh here, or why not.
fn embedded_driver_works() -> Result<(), &'static str> {
    let driver = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let driver = driver.join("libvirt/connection-driver/libvirt_driver_qemu.so");
    if !driver.exists() || !Path::new("/usr/bin/virsh").exists() {
        return Err("no virsh or no QEMU driver (apt-get install libvirt-clients libvirt-daemon-driver-qemu)");
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !users.contains("libvirt-qemu:") || !rustix::process::geteuid().is_root() {
        return Err(
            "libvirt's QEMU driver needs root and a user libvirt-qemu (useradd -r -U libvirt-qemu)",
        );
    }
    Ok(())
}

const QEMU_CONF: &str = "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\n\
    remember_owner = 0\nsecurity_driver = \"none\"\nnamespaces = [ ]\nstdio_handler = \"file\"\n";

const DOMAIN: &str = r#"<domain type='kvm'><name>NAME</name><uuid>UUID</uuid>
<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
<nova:name>shop</nova:name><nova:flavor name="m1.tiny"/></nova:instance></metadata>
<memory unit='MiB'>32</memory><vcpu placement='static' current='2'>3</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/><apic/></features>
<cpu mode='host-passthrough' check='none'><feature policy='disable' name='arch-capabilities'/></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices>
</domain>"#;
