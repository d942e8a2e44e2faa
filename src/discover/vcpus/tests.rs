use super::*;
use crate::discover::cmdline::Cmdline;
use crate::discover::program::Program;
use proptest::prelude::*;

fn thread(tid: i32, comm: &str, guest_ticks: u64) -> Thread {
    Thread {
        tid,
        comm: comm.into(),
        start_time: tid as u64,
        guest_ticks,
    }
}

fn process(program: &str, fds: Option<KvmFds>, threads: Vec<Thread>) -> Process {
    let cmdline = Cmdline::parse(program.as_bytes());
    let called = Program::new(None, &cmdline, "");
    Process {
        pid: 1,
        start_time: 1,
        uid: None,
        vmm: vmm::identify(&called, &cmdline, std::iter::empty()),
        identity: Default::default(),
        cmdline,
        cgroup: Default::default(),
        fds,
        threads,
        payer: Default::default(),
        blocked: None,
    }
}

fn fds(vms: &[i32], vcpus: &[(i32, u32)]) -> Option<KvmFds> {
    let one = |(fd, id): &(i32, u32)| VcpuFds {
        id: *id,
        fds: vec![*fd],
    };
    Some(KvmFds {
        vms: vms.into(),
        vcpus: vcpus.iter().map(one).collect(),
        distinct: false,
    })
}

/// `ordinal: index=tid …` of each VM.
fn found(machines: &[VmCandidate]) -> Vec<String> {
    let vcpus = |m: &VmCandidate| -> String {
        m.vcpus
            .iter()
            .map(|v| format!(" {}={}", v.index, v.tid))
            .collect()
    };
    machines
        .iter()
        .map(|m| format!("{}:{}", m.ordinal, vcpus(m)))
        .collect()
}

fn map(
    process: &Process,
    debugfs: &[DebugVm],
    before: &[VmCandidate],
    calls: &[(i32, i32)],
) -> Vec<VmCandidate> {
    let evidence = Evidence {
        process,
        debugfs,
        before,
    };
    let fd_of = |tid| calls.iter().find(|(t, _)| *t == tid).map(|(_, fd)| *fd);
    machines(&evidence, fd_of)
}

#[test]
fn names_tell_and_other_threads_are_left_out() {
    let threads = vec![
        thread(1, "qemu-system-x86", 0),
        thread(2, "CPU 0/KVM", 9),
        thread(3, "CPU 1/KVM", 0),
        thread(4, "kvm-nx-lpage-re", 0),
        thread(5, "worker", 3),
        thread(6, "CPU 2/TCG", 3),
    ];
    let process = process("kvm", fds(&[7], &[(8, 0), (9, 1)]), threads);
    assert_eq!(found(&map(&process, &[], &[], &[])), ["7: 0=2 1=3"]);
}

#[test]
fn names_count_where_kvm_ids_have_gaps() {
    let threads = (0..3)
        .map(|n| thread(2 + n, &format!("CPU {n}/KVM"), 0))
        .collect();
    let process = process("kvm", fds(&[7], &[(8, 0), (9, 1), (10, 4)]), threads);
    let machines = map(&process, &[], &[], &[]);
    assert_eq!(found(&machines), ["7: 0=2 1=3 2=4"]);
    assert_eq!(machines[0].missing, 0);
}

#[test]
fn without_rights_names_alone_tell() {
    let threads = vec![thread(2, "CPU 0/KVM", 0), thread(3, "CPU 1/KVM", 0)];
    assert_eq!(
        found(&map(&process("kvm", None, threads), &[], &[], &[])),
        ["0: 0=2 1=3"]
    );
    let twice = vec![thread(2, "fc_vcpu 0", 0), thread(3, "fc_vcpu 0", 0)];
    assert_eq!(
        found(&map(&process("x", None, twice), &[], &[], &[])),
        ["0: 0=2", "1: 0=3"]
    );
}

#[test]
fn names_make_no_more_vcpus_than_kvm_has() {
    let threads = |n| {
        (0..n)
            .map(|n| thread(2 + n, &format!("CPU {n}/KVM"), 0))
            .collect()
    };
    let two = process("kvm", fds(&[7], &[(8, 0), (9, 1)]), threads(50));
    assert_eq!(found(&map(&two, &[], &[], &[])), ["7: 0=2 1=3"]);
    let same = (0..50).map(|n| thread(2 + n, "CPU 0/KVM", 0)).collect();
    let unseen = process("kvm", None, same);
    assert_eq!(map(&unseen, &[], &[], &[]).len(), MAX_VMS);
}

#[test]
fn debugfs_tells_unnamed_threads() {
    let threads = vec![thread(1, "q", 0), thread(2, "q", 0), thread(3, "q", 0)];
    let process = process("q", fds(&[7], &[(8, 0), (9, 1)]), threads);
    let vm = DebugVm {
        creator: 1,
        fd: 7,
        vcpus: vec![(0, Some(3)), (1, Some(2))],
    };
    assert_eq!(found(&map(&process, &[vm], &[], &[])), ["7: 0=3 1=2"]);
}

#[test]
fn debugfs_tells_vms_of_one_process_apart() {
    let threads = (2..6).map(|tid| thread(tid, "q", 0)).collect();
    let process = process(
        "q",
        fds(&[7, 8], &[(9, 0), (10, 0), (11, 1), (12, 1)]),
        threads,
    );
    let vm = |fd, a, b| DebugVm {
        creator: 1,
        fd,
        vcpus: vec![(0, Some(a)), (1, Some(b))],
    };
    let debugfs = [vm(7, 2, 5), vm(8, 3, 4)];
    assert_eq!(
        found(&map(&process, &debugfs, &[], &[])),
        ["7: 0=2 1=5", "8: 0=3 1=4"]
    );
}

#[test]
fn a_repeated_id_is_the_next_vm_without_debugfs() {
    let threads = vec![
        thread(2, "vcpu0", 0),
        thread(3, "vcpu1", 0),
        thread(4, "vcpu0", 0),
        thread(5, "vcpu1", 0),
    ];
    let two = fds(&[7, 10], &[(8, 0), (9, 1), (11, 0), (12, 1)]);
    let process = process("cloud-hypervisor", two, threads);
    assert_eq!(
        found(&map(&process, &[], &[], &[])),
        ["7: 0=2 1=3", "10: 0=4 1=5"]
    );
}

/// Firecracker since 1.14: a dup() of each vCPU's descriptor.
#[test]
fn duplicates_of_vcpus_beside_one_descriptor_of_a_vm_are_one_vm() {
    let threads = vec![thread(1, "q", 0), thread(2, "q", 0), thread(3, "q", 0)];
    let twice = fds(&[7], &[(8, 0), (9, 1), (10, 0), (11, 1)]);
    let unnamed = process("q", twice.clone(), threads);
    // The thread may use either descriptor.
    let machines = map(&unnamed, &[], &[], &[(2, 10), (3, 9)]);
    assert_eq!(found(&machines), ["7: 0=2 1=3"]);
    let named = vec![thread(2, "fc_vcpu 0", 0), thread(3, "fc_vcpu 1", 0)];
    let named = process("firecracker", twice, named);
    assert_eq!(found(&map(&named, &[], &[], &[])), ["7: 0=2 1=3"]);
    let vm = DebugVm {
        creator: 1,
        fd: 7,
        vcpus: vec![(0, None), (1, None)],
    };
    let machines = map(&unnamed, &[vm], &[], &[(2, 10), (3, 11)]);
    assert_eq!(found(&machines), ["7: 0=2 1=3"]);
}

/// crosvm: a duplicate of the VM's descriptor in each vCPU.
#[test]
fn duplicates_of_a_vm_and_of_vcpus_are_one_vm_where_threads_have_names() {
    let threads = vec![thread(2, "vcpu0", 0), thread(3, "vcpu1", 0)];
    let doubled = fds(&[7, 8, 9], &[(10, 0), (11, 0), (12, 1), (13, 1)]);
    let process = process("crosvm", doubled, threads);
    let process = Process {
        vmm: vmm::named("cloud-hypervisor"),
        ..process
    };
    assert_eq!(found(&map(&process, &[], &[], &[])), ["7: 0=2 1=3"]);
}

#[test]
fn two_vms_with_duplicates_are_two_vms() {
    let threads = vec![thread(2, "vcpu0", 0), thread(3, "vcpu0", 0)];
    let doubled = fds(&[7, 8, 20, 21], &[(10, 0), (11, 0), (22, 0), (23, 0)]);
    let process = process("cloud-hypervisor", doubled, threads);
    let machines = map(&process, &[], &[], &[]);
    assert_eq!(found(&machines), ["7: 0=2", "20: 0=3"]);
}

#[test]
fn vcpus_the_kernel_tells_apart_are_as_many_vms_as_repeat_an_id() {
    let threads = (1..4).map(|tid| thread(tid, "q", 0)).collect();
    let vcpu = |id, fds: &[i32]| VcpuFds {
        id,
        fds: fds.into(),
    };
    let distinct = Some(KvmFds {
        vms: vec![7],
        vcpus: vec![vcpu(0, &[8, 9]), vcpu(0, &[10])],
        distinct: true,
    });
    let process = process("q", distinct, threads);
    let machines = map(&process, &[], &[], &[(2, 9), (3, 10)]);
    assert_eq!(found(&machines), ["7: 0=2", "1: 0=3"]);
}

#[test]
fn vcpus_that_any_thread_may_run_have_no_thread() {
    let threads = (1..6).map(|tid| thread(tid, "exe", 5)).collect();
    let process = process("runsc-sandbox", fds(&[7], &[(8, 0), (9, 1)]), threads);
    let machines = map(&process, &[], &[], &[(2, 8)]);
    assert_eq!(found(&machines), ["7:"]);
    assert_eq!(machines[0].threadless(), 2);
}

#[test]
fn vcpus_without_a_thread_are_counted_unless_they_were_removed() {
    let unnamed = (1..6).map(|tid| thread(tid, "q", 0)).collect();
    let four = fds(&[7], &[(8, 0), (9, 1), (10, 2), (11, 3)]);
    let process = |threads| process("kvm", four.clone(), threads);
    assert_eq!(map(&process(unnamed), &[], &[], &[])[0].threadless(), 4);
    let named = vec![thread(1, "q", 0), thread(2, "CPU 0/KVM", 0)];
    assert_eq!(map(&process(named), &[], &[], &[])[0].threadless(), 0);
}

#[test]
fn a_thread_in_kvm_run_is_known_by_its_descriptor_and_remembered() {
    let threads = vec![thread(1, "q", 0), thread(2, "q", 0), thread(3, "q", 0)];
    let process = process("q", fds(&[7], &[(8, 0), (9, 1)]), threads);
    let first = map(&process, &[], &[], &[(3, 8)]);
    assert_eq!(found(&first), ["7: 0=3"]);
    assert_eq!(first[0].missing, 1);
    let second = map(&process, &[], &first, &[(2, 9)]);
    assert_eq!(found(&second), ["7: 0=3 1=2"]);
}

#[test]
fn each_thread_is_read_once_for_all_vms_and_none_after_the_last_vcpu() {
    let vcpus = [(10, 0), (20, 0), (30, 0)];
    let threads = (100..200).map(|tid| thread(tid, "x", 0)).collect();
    let process = process("spin", fds(&[3, 4, 5], &vcpus), threads);
    let evidence = Evidence {
        process: &process,
        debugfs: &[],
        before: &[],
    };
    let calls = |runs: &[(i32, i32)]| {
        let mut calls = 0;
        let found = machines(&evidence, |tid| {
            calls += 1;
            runs.iter().find(|(thread, _)| *thread == tid).map(|r| r.1)
        });
        (found.iter().map(|m| m.vcpus.len()).sum::<usize>(), calls)
    };
    assert_eq!(calls(&[]), (0, 100));
    assert_eq!(calls(&[(101, 10), (102, 30), (109, 20)]), (3, 10));
}

#[test]
fn vms_of_one_process_are_bounded() {
    let many = MAX_VMS_OF_FDS as i32 * 2;
    let vcpus: Vec<_> = (0..many).map(|n| (2 * n + 1, 0)).collect();
    let vms: Vec<_> = (0..many).map(|n| 2 * n).collect();
    let threads = vec![thread(1, "x", 0), thread(2, "x", 0)];
    let process = process("spin", fds(&vms, &vcpus), threads);
    let evidence = Evidence {
        process: &process,
        debugfs: &[],
        before: &[],
    };
    assert_eq!(machines(&evidence, |_| None).len(), MAX_VMS_OF_FDS);
}

#[test]
fn a_reused_tid_is_not_remembered() {
    let before = [VmCandidate {
        ordinal: 7,
        vcpus: vec![Vcpu {
            index: 0,
            tid: 2,
            start_time: 99,
        }],
        ..VmCandidate::default()
    }];
    let process = process(
        "q",
        fds(&[7], &[(8, 0)]),
        vec![thread(1, "q", 0), thread(2, "q", 0)],
    );
    assert_eq!(found(&map(&process, &[], &before, &[])), ["7:"]);
}

#[test]
fn guest_time_is_the_last_resort_and_never_a_guess() {
    let threads = vec![thread(1, "q", 0), thread(2, "q", 5), thread(3, "q", 5)];
    let two = process("q", fds(&[7], &[(8, 0), (9, 1)]), threads.clone());
    assert_eq!(found(&map(&two, &[], &[], &[])), ["7: 0=2 1=3"]);
    let three = process("q", fds(&[7], &[(8, 0), (9, 1), (10, 2)]), threads);
    assert_eq!(found(&map(&three, &[], &[], &[])), ["7:"]);
    assert_eq!(found(&map(&three, &[], &[], &[(1, 9)])), ["7: 0=2 1=1 2=3"]);
}

#[test]
fn a_vm_without_vcpus_and_an_inheriting_child_are_none() {
    let probing = process(
        "kvm",
        fds(&[7], &[]),
        vec![thread(1, "q", 0), thread(2, "q", 0)],
    );
    assert_eq!(found(&map(&probing, &[], &[], &[])), Vec::<String>::new());
    let child = process("kvm", fds(&[7], &[(8, 0)]), vec![thread(1, "q", 0)]);
    assert_eq!(found(&map(&child, &[], &[], &[])), Vec::<String>::new());
    assert_eq!(found(&map(&child, &[], &[], &[(1, 8)])), ["7: 0=1"]);
}

proptest! {
    #[test]
    fn no_thread_is_two_vcpus_and_no_index_is_there_twice(
        comms in prop::collection::vec("(q|CPU [0-3]/KVM|vcpu[0-2])", 0..8),
        ids in prop::collection::vec(0u32..4, 0..8),
        debug in prop::collection::vec((0u32..4, 0i32..10), 0..6),
        calls in prop::collection::vec((0i32..10, 20i32..30), 0..4),
    ) {
        let threads = comms.iter().enumerate().map(|(n, c)| thread(n as i32, c, n as u64 % 2)).collect();
        let vcpus: Vec<(i32, u32)> = ids.iter().enumerate().map(|(n, id)| (20 + n as i32, *id)).collect();
        let process = process("q", fds(&[7, 8], &vcpus), threads);
        let debugfs: Vec<DebugVm> = debug.chunks(2).enumerate().map(|(n, vcpus)| DebugVm {
            creator: 1, fd: n as i32, vcpus: vcpus.iter().map(|(id, tid)| (*id, Some(*tid))).collect(),
        }).collect();
        let machines = map(&process, &debugfs, &[], &calls);
        let mut tids: Vec<i32> = machines.iter().flat_map(|m| &m.vcpus).map(|v| v.tid).collect();
        let count = tids.len();
        tids.sort_unstable();
        tids.dedup();
        prop_assert_eq!(tids.len(), count);
        for machine in &machines {
            prop_assert!(machine.vcpus.windows(2).all(|w| w[0].index < w[1].index), "{machine:?}");
        }
    }
}
