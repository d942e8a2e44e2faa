//! Embedded KVM guests: what the `demo` command watches and the tests measure against.
//!
//! A micro-VM is one process with one real VM: five pages of memory, a few bytes of code, no
//! devices, no kernel, no interrupts. Each of its vCPU threads is named as QEMU names them and
//! does one thing at a known rate, and the guest keeps its own count of it, so that what the
//! exporter says can be checked.
//!
//! - [`guest`] is the code the guests run, one image for each [`guest::Load`].
//! - [`vm`] is the KVM plumbing, and the only `unsafe` here.
//! - [`pace`] is the fixed schedule on which a vCPU is woken.
//! - [`micro_vm`] is the process: its arguments and vCPU threads.
//! - [`protocol`] is what it is told and answers, line by line.
//! - [`guests`] starts the three micro-VMs of the demo and ends them.
//! - [`synthetic`] is a host that does not exist, made of `files`.
//! - [`table`] draws the newest snapshot for a terminal.

pub mod files;
pub mod guest;
pub mod guests;
pub mod micro_vm;
pub mod pace;
pub mod protocol;
pub mod synthetic;
pub mod table;
pub mod vm;
