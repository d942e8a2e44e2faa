//! Fixtures of the sampler's tests: a VM with one vCPU, and CPUs.

use crate::discover::{Owner, Vcpu, Vm, VmKey};
use crate::host::topology::{Cpu, Place};

/// A VM whose process and only vCPU thread started at `start_time`.
pub(crate) fn vm(pid: i32, tid: i32, start_time: u64) -> Vm {
    Vm {
        key: VmKey {
            pid,
            start_time,
            ordinal: 0,
        },
        name: "a".to_owned(),
        name_source: "cmdline",
        uuid: None,
        vmm: "qemu",
        manager: None,
        owner: Owner::Host,
        facts: Vec::new(),
        vcpus: vec![Vcpu {
            index: 0,
            tid,
            start_time,
        }],
        threadless: 0,
        names_threads: true,
    }
}

/// An online CPU of package 0.
pub(crate) fn cpu(id: u32, core: i32, numa_node: u32) -> Cpu {
    Cpu {
        id,
        place: Place {
            package: 0,
            core,
            numa_node,
        },
        siblings: vec![id],
        ids: Default::default(),
        core_type: Default::default(),
        llc: None,
        online: true,
    }
}
