//! Texts of the files of a host: what the kernel and libvirt write, made from numbers.
//!
//! The synthetic host is made of them, and so are the hosts of the tests, which include these
//! files one by one: each uses std alone. Formats are those of Linux 6.x (proc(5),
//! Documentation/filesystems/proc.rst, Documentation/ABI).

pub mod devices;
pub mod domain;
pub mod machine;
pub mod memory;
pub mod thread;
