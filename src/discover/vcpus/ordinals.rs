//! Keeps the identity of a VM as long as its threads exist, even if its descriptors change.
//!
//! The descriptor of the `kvm-vm` file identifies a VM within a process, but a VMM can renumber it
//! (`dup2`). A changed key would rename the VM and restart its counters. debugfs does not need
//! this: its directories keep the first descriptor number.

use std::collections::HashSet;

use super::VmCandidate;

/// Gives each VM the ordinal of the earlier VM that it shares a thread with; ordinals are unique.
pub(in crate::discover) fn keep(machines: &mut [VmCandidate], before: &[VmCandidate]) {
    /// Step from a taken number to the next candidate: above all descriptors
    /// (`/proc/sys/fs/nr_open` defaults to 2^20).
    const NEXT: u32 = 1 << 20;
    let mut used = HashSet::new();
    let mut others = Vec::new();
    for machine in machines {
        let same = before.iter().find(|old| shares_a_thread(old, machine));
        match same.filter(|old| used.insert(old.ordinal)) {
            Some(old) => machine.ordinal = old.ordinal,
            None => others.push(machine),
        }
    }
    for machine in others {
        while !used.insert(machine.ordinal) {
            machine.ordinal = machine.ordinal.wrapping_add(NEXT);
        }
    }
}

fn shares_a_thread(a: &VmCandidate, b: &VmCandidate) -> bool {
    let of_a: HashSet<_> = a.vcpus.iter().map(|v| (v.tid, v.start_time)).collect();
    let mut of_b = b.vcpus.iter();
    of_b.any(|v| of_a.contains(&(v.tid, v.start_time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Vcpu;

    fn machine(ordinal: u32, tid: i32) -> VmCandidate {
        VmCandidate {
            ordinal,
            vcpus: vec![Vcpu {
                index: 0,
                tid,
                start_time: 1,
            }],
            ..VmCandidate::default()
        }
    }

    fn kept(now: &[(u32, i32)], before: &[(u32, i32)]) -> Vec<u32> {
        let all = |all: &[(u32, i32)]| all.iter().map(|(n, t)| machine(*n, *t)).collect::<Vec<_>>();
        let mut now = all(now);
        keep(&mut now, &all(before));
        now.iter().map(|m| m.ordinal).collect()
    }

    #[test]
    fn a_vm_whose_descriptor_was_renumbered_is_the_same() {
        assert_eq!(kept(&[(30, 5)], &[(10, 5)]), [10]);
        assert_eq!(kept(&[(30, 5), (31, 6)], &[(10, 6)]), [30, 10]);
    }

    #[test]
    fn a_new_vm_with_the_old_ones_descriptor_is_another() {
        assert_eq!(kept(&[(10, 6), (30, 5)], &[(10, 5)]), [10 + (1 << 20), 10]);
        assert_eq!(kept(&[(10, 6)], &[(10, 5)]), [10], "the old one is gone");
    }
}
