//! Which mappings of a VMM are its guest's RAM.
//!
//! KVM knows (its memslots), and tells nobody. From outside:
//!
//! - It is readable and writable, and is memory of the process' own or of a file (memfd,
//!   hugetlbfs, /dev/shm), but no device's.
//! - QEMU asks for each block of guest memory not to be copied into child processes
//!   (`MADV_DONTFORK`, system/physmem.c, `ram_block_add`). Where the largest candidate is marked
//!   so, all that are marked are taken: RAM, video memory, firmware.
//! - Other VMMs do not mark. There, what is as large as no stack or malloc arena in use is taken:
//!   [`LARGE`].

use crate::host::memory::smaps::{Backing, Mapping};
use crate::host::memory::Resident;

/// A mapping that is not marked is RAM from this size on (bytes). Stacks have 8 MiB at most where
/// nobody asked for more (`RLIMIT_STACK`).
pub(super) const LARGE: u64 = 16 << 20;

/// Whether it can be guest RAM at all.
pub(super) fn is_candidate(mapping: &Mapping) -> bool {
    let memory = matches!(mapping.backing, Backing::Anonymous | Backing::File);
    memory && mapping.writable && !mapping.device && (mapping.dont_fork || mapping.size() >= LARGE)
}

/// Whether a process is so small that its guest, such as one of the demo's, may have less RAM
/// than [`LARGE`].
pub(super) fn is_tiny(resident: Resident) -> bool {
    let parts = [resident.anon, resident.shmem, resident.hugetlb];
    parts.iter().fold(0u64, |a, b| a.saturating_add(*b)) < LARGE
}

/// Takes guest RAM from the candidates; what is mapped twice is taken once.
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

/// Whether the second maps a part of the same file; both sorted by offset.
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
    fn what_qemu_marks_is_ram_and_its_heap_is_not() {
        assert_eq!(
            starts(vec![marked(1, 1024), marked(2, 1), mapping(3, 64)]),
            [1, 2]
        );
    }

    #[test]
    fn without_marks_the_large_ones_are_ram() {
        assert_eq!(
            starts(vec![mapping(1, 1024), mapping(2, 8), mapping(3, 16)]),
            [1, 3]
        );
        // One that marks something small only.
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
        // Two private mappings of one file (a snapshot) have memory of their own.
        let private = |start| Mapping {
            shared: false,
            ..part(start, 0)
        };
        assert_eq!(starts(vec![private(1), private(2)]), [1, 2]);
    }
}
