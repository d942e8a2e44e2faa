//! The system allocator with counts: how often each thread allocates, and how much the process holds.
#![allow(unsafe_code)] // a counting allocator requires it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    // An exiting thread has no counter any more.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

fn give(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        System.dealloc(pointer, layout);
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        give(layout.size());
        System.realloc(pointer, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `job`.
pub(crate) fn count(job: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    job();
    ALLOCATIONS.get() - before
}

/// Runs `job`; also returns the peak of allocated memory above the present amount, and what
/// remained allocated, in bytes.
pub(crate) fn cost<T>(job: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = job();
    let most = MOST.load(Ordering::Relaxed) - before;
    let left = HELD.load(Ordering::Relaxed).saturating_sub(before);
    (result, most, left)
}
