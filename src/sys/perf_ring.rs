//! The two mapped rings of a perf event: records, and the AUX area that the hardware writes.
//!
//! Layout by perf_event_mmap() in kernel/events/core.c: one page of positions at offset 0, then
//! 2^n pages of records. User space writes the offset and size of the AUX area into the first
//! page, then maps that area too. If it is mapped writable, as here, the kernel never overwrites
//! it: tracing stops when it is full (`rb_alloc_aux`, kernel/events/ring_buffer.c).
//!
//! All access is atomic because the kernel and the traced CPU write at any time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Word offsets in `struct perf_event_mmap_page` (linux/perf_event.h): `aux_offset` is at byte
/// 1072, `aux_size` at 1080.
const AUX_OFFSET: usize = 1072 / WORD;
const AUX_SIZE: usize = 1080 / WORD;

const WORD: usize = size_of::<u64>();

/// The mapped rings of one event.
#[derive(Debug)]
pub(crate) struct PerfRing {
    base: Mapping,
    page_words: usize,
    aux: Option<Mapping>,
}

impl PerfRing {
    /// Maps the position page and `pages` pages of records; `pages` is a power of two.
    ///
    /// # Errors
    /// Those of mmap(2): `EPERM` above the limit of locked memory.
    pub(crate) fn map(event: BorrowedFd<'_>, pages: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Ok(Self {
            base: Mapping::new(event, 0, page * (1 + pages))?,
            page_words: page / WORD,
            aux: None,
        })
    }

    /// Maps an AUX area of `bytes`, which is a power of two of pages.
    ///
    /// # Errors
    /// Those of mmap(2): `EPERM` as for [`PerfRing::map`], `ENOMEM` if the kernel has no memory,
    /// `EOPNOTSUPP` or `EINVAL` if the event's PMU has no AUX area.
    pub(crate) fn map_aux(&mut self, event: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
        let offset = self.base.length;
        let page = self.page();
        page[AUX_OFFSET].store(offset as u64, Ordering::Relaxed);
        page[AUX_SIZE].store(bytes as u64, Ordering::Release);
        self.aux = Some(Mapping::new(event, offset, bytes)?);
        Ok(())
    }

    /// The page of positions (`struct perf_event_mmap_page`).
    pub(crate) fn page(&self) -> &[AtomicU64] {
        &self.base.words()[..self.page_words]
    }

    /// The record ring.
    pub(crate) fn data(&self) -> &[AtomicU64] {
        &self.base.words()[self.page_words..]
    }

    /// The AUX area; empty until mapped.
    pub(crate) fn aux(&self) -> &[AtomicU64] {
        self.aux.as_ref().map_or(&[], Mapping::words)
    }
}

/// Memory shared with the kernel; unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    /// Length in bytes, a multiple of the page size.
    length: usize,
}

impl Mapping {
    fn new(event: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel chooses the address of a new mapping, so it overlaps no other. The
        // descriptor is open during the call, and a mapping outlives its descriptor.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `length` bytes from the page-aligned `start` are mapped readable and writable
        // while `self` lives. They are always initialized (the kernel maps zeroed pages) and are
        // not backed by a file that could be truncated, so no access faults. The kernel writes
        // concurrently; all our access is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length / WORD) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this unmaps the mapping made by `new`, and no slice of it outlives `self`.
        // munmap(2) cannot fail here, and there would be no way to handle a failure.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
