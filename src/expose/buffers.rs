//! Reused byte buffers. Otherwise each body of several megabytes would allocate, grow and free a
//! buffer.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Most idle buffers.
const KEPT: usize = 2;

/// A buffer more than this many times larger than its last content is freed: a host that once had
/// many VMs does not keep their memory.
const SLACK: usize = 4;

/// Smaller buffers are always kept.
const SMALL: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    /// An empty buffer that returns to the pool when dropped.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        Buffer {
            bytes: self.with_idle(|idle| idle.pop()).unwrap_or_default(),
            home: Some(Arc::clone(self)),
        }
    }

    fn with_idle<T>(&self, f: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        // A panic leaves the list consistent, so ignore the poisoning.
        f(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A buffer that a pool owns.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Pool>>,
}

impl From<Vec<u8>> for Buffer {
    /// A buffer without a pool.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else {
            return;
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= SMALL.max(SLACK * bytes.len()) {
            bytes.clear();
            home.with_idle(|idle| {
                if idle.len() < KEPT {
                    idle.push(bytes);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_comes_empty() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[7; 1000]);
        let address = buffer.as_ptr();
        drop(buffer);
        let again = pool.take();
        assert_eq!(again.as_ptr(), address);
        assert!(again.is_empty());
    }

    #[test]
    fn few_buffers_are_kept_and_oversized_ones_are_freed() {
        let pool = Arc::new(Pool::default());
        drop((pool.take(), pool.take(), pool.take()));
        assert_eq!(pool.with_idle(|idle| idle.len()), KEPT);
        pool.with_idle(Vec::clear);
        let mut large = pool.take();
        large.reserve(SMALL + 1);
        large.push(1);
        drop(large);
        assert_eq!(pool.with_idle(|idle| idle.len()), 0);
    }
}
