//! Memory from the cgroup of a VM.

use super::*;

#[test]
fn own_cgroup_avoids_the_walk() {
    let host = two_nodes();
    host.libvirt_v2(1000, "web", UUID_A, 1);
    host.memory(
        1000,
        &[Block::ram(&[512 * MIB]), Block::own(&[0, 16 * MIB])],
    );
    // Also if the process must not be walked.
    host.remove("proc/1000/smaps");
    let scope = "machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt";
    let shmem = [0, 4096];
    host.memory_cgroup(scope, &[512 * MIB, 16 * MIB], &shmem, &[256 * MIB, 0]);
    let mut source = source(&host);
    let expected = [
        "bytes 0 512M",
        "bytes 1 16781312",
        "backing_bytes 4k 285216768",
        "backing_bytes thp 256M",
        "info cgroup 1",
    ];
    assert_eq!(read_one(&mut source, &host), expected);
    assert_eq!(source.state(), SourceState::Up);
}

#[test]
fn pool_huge_pages_are_in_the_cgroup_with_its_controller() {
    let host = two_nodes();
    host.proxmox(1000, 100, "db", UUID_A, 1);
    let pool = Block {
        path: "/run/hugepages/kvm/2048kB/ram",
        page_size: 2 * MIB,
        ..Block::ram(&[0, 512 * MIB])
    };
    host.memory(1000, &[pool, Block::own(&[16 * MIB])]);
    host.memory_cgroup("qemu.slice/100.scope", &[16 * MIB, 0], &[0, 0], &[0, 0]);
    let method = |expected: &str| {
        let reported = read_one(&mut source(&host), &host);
        assert_eq!(reported.last().unwrap(), expected, "{reported:?}");
        reported
    };
    method("info numa_maps 1");
    let file = "sys/fs/cgroup/qemu.slice/100.scope/hugetlb.2MB.numa_stat";
    host.file(file, format!("total={} N0=0 N1={}\n", 512 * MIB, 512 * MIB));
    let reported = method("info cgroup 1");
    assert_eq!(reported[..2], ["bytes 0 16M", "bytes 1 512M"]);
    assert!(
        reported.contains(&"backing_bytes hugetlb_2m 512M".to_owned()),
        "{reported:?}"
    );
}

#[test]
fn shared_cgroup_is_not_used() {
    let host = two_nodes();
    host.proxmox(1000, 100, "db", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[512 * MIB])]);
    let seen = |anon: &[u64], shmem: &[u64]| {
        host.memory_cgroup("qemu.slice/100.scope", anon, shmem, &[0, 0]);
        read_one(&mut source(&host), &host).pop().unwrap()
    };
    assert_eq!(
        seen(&[500 * MIB, 0], &[0, 0]),
        "info cgroup 1",
        "counters lag"
    );
    assert_eq!(
        seen(&[512 * MIB, 128 * MIB], &[0, 0]),
        "info numa_maps 1",
        "more"
    );
    assert_eq!(
        seen(&[16 * MIB, 0], &[0, 0]),
        "info numa_maps 1",
        "elsewhere"
    );
    host.file(
        "sys/fs/cgroup/qemu.slice/100.scope/memory.numa_stat",
        "rubbish\n",
    );
    assert_eq!(
        read_one(&mut source(&host), &host).pop().unwrap(),
        "info numa_maps 1"
    );
}

#[test]
fn cgroup_outside_the_namespace_is_located() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[512 * MIB])]);
    let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice";
    let scope = format!("{pod}/cri-containerd-1.scope");
    host.memory_cgroup(&scope, &[512 * MIB, 0], &[0, 0], &[0, 0]);
    // From two slices further up, and from a container of the same slice.
    let hidden = [
        "/../../kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-1.scope",
        "/../../../kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-1.scope",
        "/../cri-containerd-1.scope/vcpu",
    ];
    host.file(format!("sys/fs/cgroup/{scope}/vcpu/cgroup.threads"), "");
    for path in hidden {
        host.file("proc/1000/cgroup", format!("0::{path}\n"));
        let method = read_one(&mut source(&host), &host).pop().unwrap();
        assert_eq!(method, "info cgroup 1", "{path}");
    }
}

#[test]
fn private_memory_is_in_the_cgroups_page_cache() {
    let host = two_nodes();
    host.libvirt_v2(1000, "snp", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[32 * MIB, 0])]);
    let scope = "machine.slice/machine-qemu\\x2d1\\x2dsnp.scope/libvirt";
    host.memory_cgroup(scope, &[32 * MIB, 0], &[0, 0], &[0, 0]);
    let file = format!("sys/fs/cgroup/{scope}/memory.numa_stat");
    let stat = |unevictable: u64| {
        format!(
            "anon N0={} N1=0\nfile N0={} N1={}\nshmem N0=0 N1=0\n\
             unevictable N0={unevictable} N1={}\n",
            32 * MIB,
            600 * MIB,
            400 * MIB,
            400 * MIB
        )
    };
    // 88 MiB belong to its disk and can be reclaimed.
    host.file(&file, stat(512 * MIB));
    let memory = |source: &mut Memory| read_one(source, &host);
    let without = memory(&mut source(&host));
    assert_eq!(without[..2], ["bytes 0 32M", "bytes 1 0M"]);
    host.fd(1000, 40, "anon_inode:[kvm-gmem]");
    let with = memory(&mut source(&host));
    let expected = ["bytes 0 544M", "bytes 1 400M", "backing_bytes 4k 944M"];
    assert_eq!(with[..3], expected);
    assert_eq!(with.last().unwrap(), "info cgroup 1");
}

#[test]
fn private_memory_without_own_cgroup_is_unknown() {
    let host = two_nodes();
    host.qemu(1000, "snp", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[512 * MIB])]);
    for (target, code_then) in [
        ("anon_inode:[kvm-gmem]", ("down", "guest_memfd")),
        ("/[kvm-gmem] (deleted)", ("down", "guest_memfd")),
        ("/home/kvm-gmem", ("up", "")),
    ] {
        host.fd(1000, 40, target);
        let mut source = source(&host);
        let known = !read_one(&mut source, &host).is_empty();
        assert_eq!(code(&source), code_then, "{target}");
        assert_eq!(known, code_then.0 == "up", "{target}");
    }
}

#[test]
fn paths_of_cgroups_lead_nowhere_else() {
    let host = two_nodes();
    let outside = host.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[512 * MIB])]);
    host.memory_cgroup("../../../outside", &[512 * MIB], &[0], &[0]);
    host.memory_cgroup("", &[512 * MIB], &[0], &[0]);
    for path in ["/../../../outside", "/", "/x/../../../../outside"] {
        host.file("proc/1000/cgroup", format!("0::{path}\n"));
        assert_eq!(
            read_one(&mut source(&host), &host).pop().unwrap(),
            "info numa_maps 1",
            "{path}"
        );
    }
}
