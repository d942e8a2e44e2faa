//! Contents of files that the kernel and libvirt write, generated from numbers.
//!
//! The synthetic host consists of them. Tests include these files one by one for their own hosts,
//! so each file may use only std. Formats are those of Linux 6.x (proc(5),
//! Documentation/filesystems/proc.rst, Documentation/ABI).

pub mod devices;
pub mod domain;
pub mod machine;
pub mod memory;
pub mod thread;
