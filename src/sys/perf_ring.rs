//! The two rings of a perf event, mapped: records, and the AUX area that hardware writes to.
//!
//! perf_event_mmap() of kernel/events/core.c: at offset 0 a page of positions and 2^n pages of
//! records; the user then writes into that page where the AUX area is to begin and how long it is,
//! and maps it too. Mapped writable, as here, the AUX area is never overwritten: tracing stops
//! when it is full (`rb_alloc_aux`, kernel/events/ring_buffer.c).
//!
//! What is handed out is atomics. The kernel, and the CPU that traces, write there at any time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of `struct perf_event_mmap_page` (linux/perf_event.h): `aux_offset` at byte 1072 and
/// `aux_size` at 1080.
const AUX_OFFSET: usize = 1072 / WORD;
const AUX_SIZE: usize = 1080 / WORD;

const WORD: usize = size_of::<u64>();

/// A mapped event.
#[derive(Debug)]
pub(crate) struct PerfRing {
    base: Mapping,
    page_words: usize,
    aux: Option<Mapping>,
}

impl PerfRing {
    /// Maps the positions and `pages` pages for records, a power of two.
    ///
    /// # Errors
    /// mmap(2)'s: `EPERM` beyond what may be locked in memory.
    pub(crate) fn map(event: BorrowedFd<'_>, pages: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Ok(Self {
            base: Mapping::new(event, 0, page * (1 + pages))?,
            page_words: page / WORD,
            aux: None,
        })
    }

    /// Maps an AUX area of `bytes`, a power of two of pages.
    ///
    /// # Errors
    /// mmap(2)'s: `EPERM` as [`PerfRing::map`], `ENOMEM` where the kernel finds no memory,
    /// `EOPNOTSUPP` or `EINVAL` where the event's PMU has no such area.
    pub(crate) fn map_aux(&mut self, event: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
        let offset = self.base.length;
        let page = self.page();
        page[AUX_OFFSET].store(offset as u64, Ordering::Relaxed);
        page[AUX_SIZE].store(bytes as u64, Ordering::Release);
        self.aux = Some(Mapping::new(event, offset, bytes)?);
        Ok(())
    }

    /// The page of positions.
    pub(crate) fn page(&self) -> &[AtomicU64] {
        &self.base.words()[..self.page_words]
    }

    /// The ring of records.
    pub(crate) fn data(&self) -> &[AtomicU64] {
        &self.base.words()[self.page_words..]
    }

    /// The AUX area; empty before it is mapped.
    pub(crate) fn aux(&self) -> &[AtomicU64] {
        self.aux.as_ref().map_or(&[], Mapping::words)
    }
}

/// Shared memory of the kernel's, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<AtomicU64>,
    /// Bytes, a multiple of the page size.
    length: usize,
}

impl Mapping {
    fn new(event: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, placed by the kernel, overlaps nothing of ours; the descriptor is
        // open for the length of the call, and a mapping outlives it.
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
        // SAFETY: `length` bytes from `start`, which is aligned to a page, are mapped for reading
        // and writing as long as `self` lives. They are always initialised (the kernel maps zeroed
        // pages) and are not the memory of a file that could be cut short, so that no access
        // faults. Others write there meanwhile; all access of ours is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length / WORD) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and no slice of it outlives `self`.
        // munmap(2) cannot fail on it; there would be nothing to do about it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
