//! The cost of a pass with processes that cause as much work as they can.

use super::*;
use crate::fake_host::{FakeHost, UUID_A as A};

/// Processes that open a descriptor in each pass.
const BUSY: i32 = 60;
const DESCRIPTORS: i32 = 1100;

#[test]
fn processes_that_keep_changing_cost_a_bounded_pass_and_delay_no_new_vm() {
    let host = FakeHost::in_memory();
    for pid in 1..=BUSY {
        host.process(pid, 1, &["/usr/bin/busy"], "0::/");
        for fd in 0..DESCRIPTORS {
            host.fd(pid, fd, "/dev/null");
        }
    }
    let roots = Arc::new(Roots::below(host.root()));
    let mut scanner = Scanner::new(roots.clone());
    // The size of a directory that replaces /proc/PID/fd is not its number of entries.
    scanner.watch.counts_descriptors = false;
    let topology = Arc::default();
    scanner.scan(&topology);
    assert!(
        scanner.known.len() >= BUSY as usize,
        "the first pass sees all"
    );
    let mut looks = Vec::new();
    for pass in 0..16 {
        for pid in 1..=BUSY {
            host.fd(pid, DESCRIPTORS + pass, "/dev/null");
        }
        let opens = roots.opens();
        scanner.scan(&topology);
        looks.push(roots.opens() - opens); // one directory each
    }
    let links: u64 = looks.iter().sum::<u64>() * DESCRIPTORS as u64;
    assert!(
        links < 11 * 60_000,
        "16 passes read {links} links: {looks:?}"
    );
    let known = scanner.known.values();
    let examined = known.map(|known| known.examined).min().unwrap_or(0);
    assert!(examined > 8, "each has its turn: {looks:?}");
    for pid in 1..=BUSY {
        host.fd(pid, DESCRIPTORS + 100, "/dev/null");
    }
    host.qemu(1000, "new", A, 2);
    let seen = scanner.scan(&topology);
    assert_eq!(
        seen.vms.iter().map(|vm| &vm.name).collect::<Vec<_>>(),
        ["new"]
    );
}
