//! Embedded KVM guests: the `demo` command shows them, and the tests use them as reference.
//!
//! A micro-VM is one process with one real VM: five pages of memory, a few bytes of code, no
//! devices, no kernel, no interrupts. Its vCPU threads are named as QEMU names them. Each vCPU does
//! one thing at a known rate, and the guest counts it, so the exporter's numbers can be verified.
//!
//! - [`guest`] is the guests' code, one image for each [`guest::Load`].
//! - [`vm`] calls KVM, and has the only `unsafe` here.
//! - `pace` is the fixed schedule on which a vCPU wakes up.
//! - [`micro_vm`] is the process: its arguments and vCPU threads.
//! - [`protocol`] is its commands and answers, line by line.
//! - [`guests`] starts and stops the demo's three micro-VMs.
//! - [`synthetic`] is a simulated host, made of [`crate::fake_host::files`].

pub mod guest;
pub mod guests;
pub mod micro_vm;
mod pace;
pub mod protocol;
pub mod synthetic;
pub mod vm;
