//! The guests in x86-64 code.
//!
//! They run unprivileged if they can, because every host runs unprivileged code on the CPU itself.
//! KVM_PVM and Intel CPUs without unrestricted guests interpret real mode in the kernel, KVM_PVM
//! also privileged code of guests without PVM support; this time would not be guest time.

use kvm_bindings::kvm_segment;
use kvm_ioctls::{VcpuFd, VmFd};

use super::{Load, Unsupported, CODE, MEMORY};

const SPIN: &[u8] = &[
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 65536
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz to the dec
    0xff, 0x03, // inc dword [rbx]
    0xeb, 0xf3, // jmp to the start
];

/// Without an in-kernel interrupt controller, `hlt` exits to user space, which continues the guest
/// after it at any time (Documentation/virt/kvm/api.rst, KVM_EXIT_HLT).
const HALT: &[u8] = &[
    0xff, 0x03, // inc dword [rbx]
    0xf4, // hlt
    0xeb, 0xfb, // jmp to the start
];

const IO: &[u8] = &[
    0xff, 0x03, // inc dword [rbx]
    0xee, // out dx, al
    0xeb, 0xfb, // jmp to the start
];

/// A turn of [`SPIN`], and a write that exits.
const HALF: &[u8] = &[
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 65536
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz to the dec
    0xff, 0x03, // inc dword [rbx]
    0xee, // out dx, al
    0xeb, 0xf2, // jmp to the start
];

/// Port that `io` and `half` write to; it has no device.
const PORT: u64 = 0xe9;

/// KVM's task segment on Intel CPUs without unrestricted guests: three pages below 4 GiB that the
/// guest does not use (api.rst, KVM_SET_TSS_ADDR). A vCPU is in real mode until it is prepared.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// One page table of each level; the last has one large page at 0 (Intel SDM volume 3, 5.5.4). It
/// exceeds the memory, but the guest accesses only the memory.
const TABLES: [u64; 3] = [0x2000, 0x3000, 0x4000];
const PRESENT_WRITABLE_USER: u64 = 0b111;
const LARGE_PAGE: u64 = 1 << 7;

// Bits of the control registers and of EFER (SDM volume 3, 2.5 and 2.2.1).
const CR0_PE_ET_PG: u64 = 1 | 1 << 4 | 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;

/// Port I/O allowed at every privilege level, and bit 1, which is always set (SDM volume 1, 3.4.3).
/// Interrupts stay disabled.
const RFLAGS_IOPL_3: u64 = 3 << 12 | 1 << 1;

/// Initial contents of the guest's memory, by address; the rest is 0.
pub(crate) fn contents(load: Load) -> Result<Vec<(u64, Vec<u8>)>, Unsupported> {
    let image = match load {
        Load::Spin => SPIN,
        Load::Halt => HALT,
        Load::Io => IO,
        Load::Half => HALF,
    };
    let entries = [
        TABLES[1] | PRESENT_WRITABLE_USER,
        TABLES[2] | PRESENT_WRITABLE_USER,
        MEMORY | PRESENT_WRITABLE_USER | LARGE_PAGE,
    ];
    let tables = TABLES.into_iter().zip(entries);
    let tables = tables.map(|(at, entry)| (at, entry.to_le_bytes().to_vec()));
    Ok(std::iter::once((CODE, image.to_vec()))
        .chain(tables)
        .collect())
}

/// Prepares the VM before its first vCPU.
pub(crate) fn prepare_vm(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.set_tss_address(TSS_ADDRESS)
}

/// The privilege level of a load: only `hlt` requires level 0.
fn privilege(load: Load) -> u8 {
    match load {
        Load::Halt => 0,
        Load::Spin | Load::Io | Load::Half => 3,
    }
}

/// Sets a vCPU to start at the image of `load` and to count at `counter`.
pub(crate) fn prepare_vcpu(
    _: &VmFd,
    vcpu: &VcpuFd,
    load: Load,
    counter: u64,
) -> Result<(), kvm_ioctls::Error> {
    let level = privilege(load);
    let mut system = vcpu.get_sregs()?;
    system.cs = segment(1, level, 0b1011); // code: readable, accessed
    let data = segment(2, level, 0b0011); // data: writable, accessed
    (system.ds, system.es, system.fs, system.gs, system.ss) = (data, data, data, data, data);
    system.cr0 = CR0_PE_ET_PG;
    system.cr3 = TABLES[0];
    system.cr4 = CR4_PAE;
    system.efer = EFER_LME_LMA;
    vcpu.set_sregs(&system)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = CODE;
    registers.rflags = RFLAGS_IOPL_3;
    registers.rbx = counter;
    registers.rdx = PORT;
    vcpu.set_regs(&registers)
}

/// A flat segment with this privilege level, as if loaded from entry `n` of a descriptor table (SDM
/// volume 3, 3.4.5).
fn segment(n: u16, level: u8, kind: u8) -> kvm_segment {
    let code = u8::from(kind & 0b1000 != 0);
    kvm_segment {
        limit: u32::MAX,
        selector: n << 3 | u16::from(level),
        type_: kind,
        dpl: level,
        present: 1,
        s: 1,
        l: code,
        db: 1 - code,
        g: 1,
        ..Default::default()
    }
}
