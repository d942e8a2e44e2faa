//! Real KVM guests do what they report: the reference for other tests of the exporter.

#![cfg(feature = "demo")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::micro_vm::{comm, descriptors, ends, is_alive, kvm_works, MicroVm};
use crate::support::run::{eventually, stolen};
use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::demo::guests::Guests;
use vcpu_exporter::demo::micro_vm::{WAKE_PERIOD, WRITES_PER_WAKE};
use vcpu_exporter::demo::protocol::{Reply, VcpuStats};

const PERIOD_NS: u64 = WAKE_PERIOD.as_nanos() as u64;

const EXE: &str = env!("CARGO_BIN_EXE_vcpu-exporter");

/// Nanoseconds that a thread waited while runnable: the second field of schedstat
/// (Documentation/scheduler/sched-stats.rst).
fn delay_ns(vm: &MicroVm, index: usize) -> Option<u64> {
    let path = format!("/proc/{}/task/{}/schedstat", vm.pid(), vm.tid(index));
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// The clock of [`Stats::monotonic_ns`](vcpu_exporter::demo::protocol::Stats).
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Reads a vCPU's counts until they are consistent: on a busy machine the guest can continue
/// between two of them.
#[track_caller]
fn assert_agree(vm: &mut MicroVm, test: impl Fn(&VcpuStats) -> bool) {
    let agree = eventually(|| test(&vm.vcpu_stats(0).1).then_some(()));
    assert!(agree.is_some(), "{:?}", vm.vcpu_stats(0).1);
}

#[test]
fn a_spinning_guest_works_or_waits_for_a_core_and_never_rests() {
    if !kvm_works() {
        return;
    }
    let (born, stolen_before) = (monotonic_ns(), stolen());
    let mut vm = MicroVm::start("spin", Load::Spin, 2);
    for index in 0..2 {
        let busy = eventually(|| {
            let delay = delay_ns(&vm, index)?;
            let (now, vcpu) = vm.vcpu_stats(index);
            let busy = vcpu.cpu_ns + delay;
            assert!(busy <= now - born, "{busy} ns in {} ns", now - born);
            let stolen_ns = ((stolen() - stolen_before) * 1e9) as u64;
            let life = now - vcpu.started_ns;
            (vcpu.cpu_ns > 200_000_000 && busy + stolen_ns > life / 10 * 9).then_some(vcpu)
        });
        let vcpu = busy.expect("a spinning vCPU is always runnable");
        assert!(vcpu.turns > 100, "the guest itself counts: {vcpu:?}");
        assert_eq!((vcpu.halts, vcpu.writes), (0, 0));
    }
}

// Fields of stat (proc_pid_stat(5)): clock ticks in user space, including guest time, and in the
// guest.
const UTIME: usize = 14;
const GUEST_TIME: usize = 43;

/// A field of a thread's stat after its name, which is the second field.
fn ticks(vm: &MicroVm, index: usize, field: usize) -> Option<u64> {
    let path = format!("/proc/{}/task/{}/stat", vm.pid(), vm.tid(index));
    let text = std::fs::read_to_string(path).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split_whitespace();
    fields.nth(field - 3)?.parse().ok()
}

#[test]
fn a_spinning_guest_is_run_by_the_cpu_and_not_interpreted() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("guest-time", Load::Spin, 1);
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    let inside = eventually(|| {
        let (_, vcpu) = vm.vcpu_stats(0);
        let inside = ticks(&vm, 0, GUEST_TIME)? * tick_ns;
        (vcpu.cpu_ns > 200_000_000 && inside > vcpu.cpu_ns / 2).then_some(())
    });
    assert!(inside.is_some(), "most of its time is guest time");
}

#[test]
fn half_of_a_half_guest_is_its_vmm() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("half", Load::Half, 1);
    let mut found = (0, 0);
    let alike = eventually(|| {
        let [user, guest] = [UTIME, GUEST_TIME].map(|field| ticks(&vm, 0, field));
        let (user, guest) = (user?, guest?);
        // User time includes guest time, but the kernel scales it alone, and the guest's was read
        // later: at first it can be less. Exits are separate from both and can cost as much.
        found = (user.checked_sub(guest)?, guest);
        let (vmm, guest) = found;
        (guest > 50 && vmm > guest / 2 && vmm < guest * 2).then_some(())
    });
    assert!(
        alike.is_some(),
        "ticks of the VMM and of the guest: {found:?}"
    );
    let (_, vcpu) = vm.vcpu_stats(0);
    assert_eq!(vcpu.halts, 0);
    assert_agree(&mut vm, |vcpu| {
        u64::from(vcpu.turns).abs_diff(vcpu.writes) <= 1
    });
}

/// Waits until a vCPU was woken on schedule for half a second.
fn on_schedule(vm: &mut MicroVm, wakes: impl Fn(&VcpuStats) -> u64) -> Option<VcpuStats> {
    eventually(|| {
        let (now, vcpu) = vm.vcpu_stats(0);
        let (due, woken) = ((now - vcpu.started_ns) / PERIOD_NS, wakes(&vcpu));
        assert!(woken + vcpu.skipped <= due, "early: {woken} of {due}");
        (due >= 50 && woken + vcpu.skipped + 2 >= due).then_some(vcpu)
    })
}

#[test]
fn a_halting_guest_is_woken_a_hundred_times_a_second() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("halt", Load::Halt, 1);
    // The vCPU halts once before it is woken for the first time.
    let vcpu = on_schedule(&mut vm, |vcpu| vcpu.halts.saturating_sub(1));
    let vcpu = vcpu.expect("it halts 100 times a second");
    assert_eq!(vcpu.writes, 0);
    assert_agree(&mut vm, |vcpu| {
        vcpu.exits >= vcpu.halts && u64::from(vcpu.turns).abs_diff(vcpu.halts) <= 1
    });
}

#[test]
fn port_writes_leave_the_guest_a_thousand_times_a_second() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("io", Load::Io, 1);
    let wakes = |vcpu: &VcpuStats| (vcpu.writes / WRITES_PER_WAKE).saturating_sub(1);
    let vcpu = on_schedule(&mut vm, wakes).expect("it writes on schedule");
    assert_eq!(vcpu.halts, 0);
    // Both counts change between the two readings during a burst.
    assert_agree(&mut vm, |vcpu| {
        let off = u64::from(vcpu.turns).abs_diff(vcpu.writes);
        vcpu.exits >= vcpu.writes && off <= WRITES_PER_WAKE
    });
}

#[test]
fn threads_and_descriptors_look_like_those_of_a_vmm() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("look", Load::Halt, 1);
    let added = vm.add_vcpu();
    for index in [0, added] {
        let name = comm(vm.pid(), vm.tid(index));
        assert_eq!(name, Some(format!("CPU {index}/KVM")));
    }
    let descriptors = descriptors(vm.pid());
    for expected in ["kvm-vm", "kvm-vcpu:0", "kvm-vcpu:1"] {
        let expected = format!("anon_inode:{expected}");
        assert!(
            descriptors.contains(&expected),
            "{expected}: {descriptors:?}"
        );
    }
    assert_eq!(
        on_schedule(&mut vm, |vcpu| vcpu.halts.saturating_sub(1)).map(|v| v.index),
        Some(0)
    );
    let runs = eventually(|| (vm.vcpu_stats(added).1.halts > 0).then_some(()));
    assert!(runs.is_some(), "the added vCPU does not run");
}

#[test]
fn a_pinned_vcpu_may_run_on_that_cpu_only() {
    if !kvm_works() {
        return;
    }
    let mut vm = MicroVm::start("pin", Load::Halt, 1);
    let status = format!("/proc/{}/task/{}/status", vm.pid(), vm.tid(0));
    let allowed = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let list = text
            .lines()
            .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        list.unwrap().trim().to_owned()
    };
    // The last of the CPUs that this test may use.
    let cpus = allowed();
    let last = cpus.rsplit([',', '-']).next().unwrap().parse().unwrap();
    vm.pin(0, last);
    assert_eq!(allowed(), last.to_string());
    for wrong in ["pin 1 0", "pin 0 1000000", "pin 0 x", "dance"] {
        assert!(matches!(vm.tell(wrong), Reply::Error { .. }), "{wrong}");
    }
}

#[test]
fn it_ends_when_told_when_nobody_listens_and_on_sigterm() {
    if !kvm_works() {
        return;
    }
    assert_eq!(MicroVm::start("stop", Load::Spin, 1).stop(), Some(0));
    assert_eq!(MicroVm::start("eof", Load::Spin, 1).hang_up(), Some(0));
    assert_eq!(MicroVm::start("term", Load::Spin, 1).terminate(), None);
}

/// A guest without its control process is killed: here the parent is a shell that is killed.
#[test]
fn a_killed_parent_leaves_no_guest() {
    if !kvm_works() {
        return;
    }
    let script = r#""$0" micro-vm --name orphan --load spin & echo $!; wait"#;
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, EXE])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap())
        .read_line(&mut pid)
        .unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    let running = eventually(|| {
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        threads.find_map(|t| {
            let tid = t.ok()?.file_name().to_str()?.parse().ok()?;
            (comm(pid, tid)? == "CPU 0/KVM").then_some(())
        })
    });
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert!(ends(pid), "{pid} outlived its parent");
    assert!(running.is_some(), "the guest ran");
}

#[test]
fn the_demos_guests_start_together_and_leave_nothing_behind() {
    if !kvm_works() {
        return;
    }
    let mut guests = Guests::start(Path::new(EXE)).unwrap();
    let pids: Vec<u32> = guests.iter().map(|guest| guest.ready.pid).collect();
    let vcpus: Vec<usize> = guests.iter().map(|g| g.ready.vcpus.len()).collect();
    assert_eq!(vcpus, [2, 1, 1]);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    guests.stop();
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is reaped"
        );
    }
}
