//! Selects the mappings of a VMM that are guest RAM.
//!
//! KVM knows them (its memslots) but does not expose them. From outside:
//!
//! - Guest RAM is readable and writable, and is anonymous memory or memory of a file (memfd,
//!   hugetlbfs, /dev/shm), but not of a device.
//! - QEMU marks each block of guest memory as not copied into child processes (`MADV_DONTFORK`,
//!   system/physmem.c, `ram_block_add`). If the largest candidate is marked, all marked mappings
//!   are selected: RAM, video memory, firmware.
//! - Other VMMs do not mark it. For them, mappings larger than any stack or malloc arena in use
//!   are selected: [`LARGE`].

use crate::host::memory::smaps::{Backing, Mapping};
use crate::host::memory::Resident;

/// An unmarked mapping is RAM from this size in bytes. Stacks have at most 8 MiB by default
/// (`RLIMIT_STACK`).
pub(super) const LARGE: u64 = 16 << 20;

/// Whether the mapping can be guest RAM at all.
pub(super) fn is_candidate(mapping: &Mapping) -> bool {
    let memory = matches!(mapping.backing, Backing::Anonymous | Backing::File);
    memory && mapping.writable && !mapping.device && (mapping.dont_fork || mapping.size() >= LARGE)
}

/// Whether a process is so small that its guest may have less RAM than [`LARGE`], such as a guest
/// of the demo.
pub(super) fn is_tiny(resident: Resident) -> bool {
    let parts = [resident.anon, resident.shmem, resident.hugetlb];
    parts.iter().fold(0u64, |a, b| a.saturating_add(*b)) < LARGE
}

/// Selects guest RAM from the candidates; a file region that is mapped twice is selected once.
pub(super) fn select(mut candidates: Vec<Mapping>) -> Vec<Mapping> {
    let largest = candidates.iter().max_by_key(|m| (m.size(), m.dont_fork));
    let marked = largest.is_some_and(|m| m.dont_fork);
    candidates.retain(|m| {
        if marked {
            m.dont_fork
        } else {
            m.size() >= LARGE
        }
    });
    candidates.sort_by(|a, b| (a.shared, &a.file).cmp(&(b.shared, &b.file)));
    let mut taken: Vec<Mapping> = Vec::new();
    for mapping in candidates {
        if !taken.last().is_some_and(|last| overlaps(last, &mapping)) {
            taken.push(mapping);
        }
    }
    taken
}

/// Whether `second` maps a part of the same file region; both are sorted by offset.
fn overlaps(first: &Mapping, second: &Mapping) -> bool {
    let (device, inode, offset) = &first.file;
    let same = first.shared && second.shared && (device, inode) == (&second.file.0, &second.file.1);
    same && second.file.2 < offset.saturating_add(first.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, mib: u64) -> Mapping {
        Mapping {
            start,
            end: start + (mib << 20),
            writable: true,
            backing: Backing::Anonymous,
            ..Mapping::default()
        }
    }

    fn marked(start: u64, mib: u64) -> Mapping {
        Mapping {
            dont_fork: true,
            ..mapping(start, mib)
        }
    }

    fn starts(candidates: Vec<Mapping>) -> Vec<u64> {
        let candidates = candidates.into_iter().filter(is_candidate).collect();
        select(candidates).iter().map(|m| m.start).collect()
    }

    #[test]
    fn marked_mappings_of_qemu_are_ram_and_its_heap_is_not() {
        assert_eq!(
            starts(vec![marked(1, 1024), marked(2, 1), mapping(3, 64)]),
            [1, 2]
        );
    }

    #[test]
    fn without_marks_large_mappings_are_ram() {
        assert_eq!(
            starts(vec![mapping(1, 1024), mapping(2, 8), mapping(3, 16)]),
            [1, 3]
        );
        // A VMM that marks only a small mapping.
        assert_eq!(starts(vec![mapping(1, 1024), marked(2, 1)]), [1]);
        assert_eq!(starts(vec![mapping(1, 8)]), [0; 0]);
    }

    #[test]
    fn devices_code_and_reservations_are_never_ram() {
        let device = Mapping {
            device: true,
            ..marked(1, 1024)
        };
        let reserved = Mapping {
            writable: false,
            ..mapping(2, 1024)
        };
        let ring = Mapping {
            backing: Backing::Other,
            ..marked(3, 1024)
        };
        assert_eq!(starts(vec![device, reserved, ring]), [0; 0]);
    }

    #[test]
    fn a_file_mapped_twice_counts_once() {
        let part = |start, offset| Mapping {
            shared: true,
            backing: Backing::File,
            file: (b"00:01"[..].into(), 7, offset),
            ..mapping(start, 64)
        };
        let parts = vec![part(3, 64 << 20), part(1, 0), part(2, 0), part(4, 32 << 20)];
        assert_eq!(starts(parts), [1, 3]);
        // Two private mappings of one file (a snapshot) have separate memory.
        let private = |start| Mapping {
            shared: false,
            ..part(start, 0)
        };
        assert_eq!(starts(vec![private(1), private(2)]), [1, 2]);
    }
}
