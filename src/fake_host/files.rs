//! Contents of files that the kernel and libvirt write, generated from numbers.
//!
//! The synthetic host and the tests' hosts consist of them. Formats are those of Linux 6.x (proc(5),
//! Documentation/filesystems/proc.rst, Documentation/ABI).

pub mod devices;
pub mod domain;
pub mod machine;
pub mod memory;
pub mod thread;
