//! Kept-open /proc files of one thread.
