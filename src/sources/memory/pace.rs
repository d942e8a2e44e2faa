//! Limits on page table walks: for one VM, and for the host.

use std::time::{Duration, Instant};

use crate::host::memory::{text, Resident};
use crate::host::roots::Roots;

/// All walks together take at most this share of the time of one core …
const SHARE: f64 = 0.02;

/// … but may take this many seconds at once after a quiet time.
const BURST: f64 = 1.0;

/// Time left for walks.
#[derive(Debug)]
pub(super) struct Bucket {
    /// In seconds; negative after a walk that took more than was left.
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Whether a walk may start at `now`.
    pub(super) fn has_time(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        self.left = BURST.min(self.left + since.as_secs_f64() * SHARE);
        self.at = self.at.max(now);
        self.left > 0.0
    }

    /// Subtracts the duration of a walk.
    pub(super) fn take(&mut self, time: Duration) {
        self.left -= time.as_secs_f64();
    }
}

/// Which memory may use transparent huge pages on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HugePages {
    anon: bool,
    shmem: bool,
}

impl HugePages {
    /// Reads the settings (Documentation/admin-guide/mm/transhuge.rst).
    pub(super) fn read(roots: &Roots) -> Self {
        let set = |name: &str| {
            let path = roots.sys.join("kernel/mm/transparent_hugepage").join(name);
            let text = text::small(roots, &path).unwrap_or_default();
            let off = |word: &&[u8]| matches!(*word, b"[never]" | b"[deny]");
            let mut words = text.trim_ascii().split(|b| *b == b' ');
            !text.is_empty() && !words.any(|word| off(&word))
        };
        Self {
            anon: set("enabled"),
            shmem: set("shmem_enabled"),
        }
    }
}

/// Expected duration of walking this memory in each of `files`, if all memory that may be in huge
/// pages is. VMMs request huge pages; if the kernel had none, the walk itself detects it.
pub(super) fn expected(resident: Resident, huge: HugePages, files: u32) -> Duration {
    // Measured on Linux 6.18 for numa_maps and for smaps: 31 ms and 1.6 ms for 2 GiB.
    let nanoseconds = |bytes: u64, huge: bool| {
        if huge {
            (bytes >> 21).saturating_mul(1500)
        } else {
            (bytes >> 12).saturating_mul(60)
        }
    };
    let parts = [
        nanoseconds(resident.anon, huge.anon),
        nanoseconds(resident.shmem, huge.shmem),
        nanoseconds(resident.file, false),
        nanoseconds(resident.hugetlb, true),
    ];
    let once = parts.iter().fold(0u64, |a, b| a.saturating_add(*b));
    Duration::from_nanos(once.saturating_mul(u64::from(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_take_a_share_of_the_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let mut walked = Duration::ZERO;
        for second in 0..1000 {
            while bucket.has_time(start + Duration::from_secs(second)) {
                bucket.take(Duration::from_millis(100));
                walked += Duration::from_millis(100);
            }
        }
        // The burst, 2 % of 999 s, and the overdraft of the last walk.
        assert!((20.98..=21.1).contains(&walked.as_secs_f64()), "{walked:?}");
    }

    #[test]
    fn large_vm_takes_long_without_huge_pages() {
        let of = |resident, anon| {
            let huge = HugePages { anon, shmem: false };
            expected(resident, huge, 2).as_millis()
        };
        let anon = |bytes| Resident {
            anon: bytes,
            ..Resident::default()
        };
        assert_eq!(of(anon(256 << 30), false), 8053);
        assert_eq!(of(anon(32 << 30), true), 49);
        let pool = Resident {
            hugetlb: 64 << 30,
            ..Resident::default()
        };
        assert_eq!(of(pool, false), 98);
        assert!(of(anon(u64::MAX), false) > 1000);
    }

    #[test]
    fn settings_of_huge_pages_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        assert_eq!(HugePages::read(&roots), HugePages::default());
        let settings = roots.sys.join("kernel/mm/transparent_hugepage");
        std::fs::create_dir_all(&settings).unwrap();
        let write = |name, text| std::fs::write(settings.join(name), text).unwrap();
        write("enabled", "always [madvise] never\n");
        write(
            "shmem_enabled",
            "always within_size advise [never] deny force\n",
        );
        let expected = HugePages {
            anon: true,
            shmem: false,
        };
        assert_eq!(HugePages::read(&roots), expected);
    }
}
