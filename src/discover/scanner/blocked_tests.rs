//! The scanner with processes that block readers of their memory: a FIFO without a writer stands
//! for a page that is never loaded.

use std::io::Write;
use std::time::{Duration, Instant};

use super::*;
use crate::fake_host::{FakeHost, FakeVm, UUID_A as A, UUID_B as B};

struct Host {
    host: FakeHost,
    scanner: Scanner,
    topology: Arc<Topology>,
}

impl Host {
    fn new() -> Self {
        let host = FakeHost::new();
        Self {
            scanner: Scanner::new(Arc::new(Roots::below(host.root()))),
            topology: Arc::default(),
            host,
        }
    }

    fn scan(&mut self) -> Arc<Inventory> {
        self.scanner.scan(&self.topology)
    }

    fn names(&mut self) -> Vec<String> {
        self.scan().vms.iter().map(|vm| vm.name.clone()).collect()
    }

    /// Scans until the VMs have these names.
    fn until(&mut self, names: &[&str]) -> Arc<Inventory> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.names() == names {
                return self.scan();
            }
            std::thread::yield_now();
        }
        panic!("{:?} and not {names:?}", self.names());
    }

    fn block(&self, vm: &FakeVm) {
        self.fifo(&format!("proc/{}/cmdline", vm.pid));
    }

    fn fifo(&self, path: &str) {
        self.host.remove(path);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, self.host.path(path), kind, mode, 0).unwrap();
    }

    /// Answers the reader of the FIFO.
    fn answer(&self, vm: &FakeVm, text: &str) {
        let path = self.host.path(format!("proc/{}/cmdline", vm.pid));
        let mut fifo = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        fifo.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn a_new_process_that_blocks_is_a_blind_spot_and_others_come_and_go() {
    let mut host = Host::new();
    host.host.qemu(1000, "a", A, 1);
    let blocker = host.host.qemu(1100, "b", B, 1);
    host.block(&blocker);
    let inventory = host.scan();
    assert_eq!(inventory.vms.len(), 1);
    assert_eq!(inventory.vms[0].name, "a");
    assert_eq!(inventory.blocked, 1);
    let [gap] = &inventory.visibility_gaps[..] else {
        panic!("{:?}", inventory.visibility_gaps)
    };
    let line = &gap.unseen;
    assert!(line.contains("1 process cannot be examined"), "{line}");
    assert!(line.contains("PID 1100"), "{line}");
    assert!(Arc::ptr_eq(&inventory, &host.scan()), "nothing changed");
    host.host.qemu(1200, "c", "", 1);
    host.until(&["a", "c"]);
    host.host.exit(1000);
    assert_eq!(host.names(), ["c"]);
    host.answer(&blocker, "kvm\0-name\0late\0");
    let inventory = host.until(&["c", "late"]);
    assert_eq!((inventory.blocked, inventory.visibility_gaps.len()), (0, 0));
}

#[test]
fn a_vm_that_begins_to_block_keeps_its_name_and_its_vcpus_are_followed() {
    let mut host = Host::new();
    let vm = host.host.qemu(1000, "a", A, 1);
    host.scan();
    host.block(&vm);
    host.host
        .fd(1000, 40, "anon_inode:kvm-vcpu:1")
        .thread(1000, 1040, "CPU 1/KVM", 9000);
    let inventory = host.scan();
    assert_eq!(inventory.vms[0].name, "a");
    assert_eq!(inventory.vms[0].vcpus.len(), 2);
    assert_eq!(inventory.blocked, 1);
    host.host.exit(1000);
    assert_eq!(host.names(), Vec::<String>::new());
    assert_eq!(host.scan().blocked, 0);
}

#[test]
fn a_process_that_takes_the_pid_of_a_blocked_one_gets_nothing_of_it() {
    let mut host = Host::new();
    let vm = host.host.qemu(1000, "a", A, 1);
    host.scan();
    host.block(&vm);
    host.host.fd(1000, 40, "anon_inode:kvm-vcpu:1");
    host.scan();
    host.host.exit(1000).qemu(1000, "b", B, 1);
    // The file system of the fake host may use an inode again; procfs does not.
    host.host.set(1000, 1000, |t| t.start_time += 100);
    host.until(&["b"]);
}

#[test]
fn a_user_whose_processes_all_block_leaves_others_visible() {
    let mut host = Host::new();
    for n in 0..40 {
        let pid = 2000 + 100 * n;
        let vm = host.host.qemu(pid, &format!("bad{n}"), "", 1);
        let session = format!("0::/user.slice/user-1001.slice/session-{n}.scope\n");
        host.host.file(format!("proc/{pid}/cgroup"), session);
        host.block(&vm);
    }
    host.scan();
    host.host.qemu(9000, "good", A, 1);
    let inventory = host.until(&["good"]);
    // Some of them had no time yet.
    assert!(inventory.blocked > 20, "{}", inventory.blocked);
}

#[test]
fn a_call_that_cannot_be_read_leaves_the_vm_as_far_as_it_is_known() {
    let mut host = Host::new();
    let vm = host.host.qemu(1000, "a", A, 2);
    for tid in &vm.vcpus {
        host.host.set(1000, *tid, |t| t.comm = "qemu".into());
        host.fifo(&format!("proc/1000/task/{tid}/syscall"));
    }
    host.host.qemu(1100, "b", B, 1);
    let inventory = host.scan();
    let names: Vec<_> = inventory.vms.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn other_files_are_never_waited_for() {
    let mut host = Host::new();
    host.host.qemu(1000, "a", A, 1);
    host.host.qemu(1100, "b", B, 1);
    for file in ["status", "cgroup"] {
        host.fifo(&format!("proc/1000/{file}"));
    }
    host.host.libvirt_xml("a", "");
    host.fifo("run/libvirt/qemu/x.xml");
    assert_eq!(host.names(), ["a", "b"]);
}
