//! What a row is about, in numbers. Its labels say the same in text.

use crate::discover::Vcpu;

pub use crate::discover::VmKey;

/// The subject of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subject {
    /// The host or the exporter.
    #[default]
    Host,
    /// A VM, and none of its vCPUs.
    Vm(VmKey),
    /// A vCPU and its thread.
    Vcpu(VmKey, Vcpu),
}

impl Subject {
    /// The VM; `None` for the host.
    pub fn vm(self) -> Option<VmKey> {
        match self {
            Self::Host => None,
            Self::Vm(vm) | Self::Vcpu(vm, _) => Some(vm),
        }
    }

    /// Start of the vCPU's thread or of the VM, in clock ticks since boot; `None` for the host.
    pub fn start_time(self) -> Option<u64> {
        match self {
            Self::Host => None,
            Self::Vm(vm) => Some(vm.start_time),
            Self::Vcpu(_, vcpu) => Some(vcpu.start_time),
        }
    }
}
