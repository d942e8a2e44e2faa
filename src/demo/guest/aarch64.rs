//! The guests in arm64 code, at EL1 with the MMU on. With the MMU off, the guest's stores would
//! bypass the caches of a CPU without FEAT_S2FWB, and the host would not see them.

use kvm_bindings::{
    kvm_vcpu_init, KVM_ARM_VCPU_PSCI_0_2, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_ARM_CORE,
    KVM_REG_SIZE_U64,
};
use kvm_ioctls::{VcpuFd, VmFd};

use super::{Load, Unsupported, CODE, HALT_REGISTER, IO_REGISTER, MEMORY};

const SPIN: [u32; 7] = [
    0x52a0_0021, // mov w1, 65536
    0x7100_0421, // subs w1, w1, 1
    0x54ff_ffe1, // b.ne to the subs
    0xb940_0002, // ldr w2, [x0]
    0x1100_0442, // add w2, w2, 1
    0xb900_0002, // str w2, [x0]
    0x17ff_fffa, // b to the start
];

/// A `wfi` would wait in the kernel for an interrupt that never comes. So the guest asks the VMM to
/// halt it, by a write that exits.
const TELL: [u32; 5] = [
    0xb940_0002, // ldr w2, [x0]
    0x1100_0442, // add w2, w2, 1
    0xb900_0002, // str w2, [x0]
    0xb900_0062, // str w2, [x3]
    0x17ff_fffc, // b to the start
];

/// A turn of [`SPIN`], and a write that exits.
const HALF: [u32; 8] = [
    0x52a0_0021, // mov w1, 65536
    0x7100_0421, // subs w1, w1, 1
    0x54ff_ffe1, // b.ne to the subs
    0xb940_0002, // ldr w2, [x0]
    0x1100_0442, // add w2, w2, 1
    0xb900_0002, // str w2, [x0]
    0xb900_0062, // str w2, [x3]
    0x17ff_fff9, // b to the start
];

/// The level-1 table, where a 39-bit translation starts: 1 GiB per entry (Arm ARM, D8.2).
const TABLE: u64 = 0x2000;

/// A block: read/write at EL1, access flag set, inner shareable (Arm ARM, D8.3).
const BLOCK: u64 = 1 | 3 << 8 | 1 << 10;

/// Index 1 of [`MAIR`]: the registers.
const DEVICE: u64 = 1 << 2;

/// Index 0 is normal write-back memory, index 1 device memory without gathering (Arm ARM, D24.2,
/// MAIR_EL1).
const MAIR: u64 = 0xff;

/// 39 bits by TTBR0 only, 4 KiB pages, tables cached and inner shareable (TCR_EL1).
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;

/// Bits that are 1 in ARMv8.0; MMU, data and instruction caches on (SCTLR_EL1).
const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 12;

/// EL1 with its own stack pointer, all exceptions masked (SPSR_EL2).
const PSTATE: u64 = 0x3c5;

/// Initial contents of the guest's memory, by address; the rest is 0.
pub(crate) fn contents(load: Load) -> Result<Vec<(u64, Vec<u8>)>, Unsupported> {
    let image: &[u32] = match load {
        Load::Spin => &SPIN,
        Load::Halt | Load::Io => &TELL,
        Load::Half => &HALF,
    };
    let code = image.iter().flat_map(|word| word.to_le_bytes()).collect();
    // Memory and registers are in different GiB, because each block has one memory type.
    let table = [MEMORY | BLOCK, HALT_REGISTER | BLOCK | DEVICE];
    let table = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    Ok(vec![(CODE, code), (TABLE, table)])
}

/// Prepares the VM before its first vCPU.
pub(crate) fn prepare_vm(_: &VmFd) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}

/// Sets a vCPU to start at the image of `load` and to count at `counter`.
pub(crate) fn prepare_vcpu(
    vm: &VmFd,
    vcpu: &VcpuFd,
    load: Load,
    counter: u64,
) -> Result<(), kvm_ioctls::Error> {
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target)?;
    target.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    vcpu.vcpu_init(&target)?;
    let register = match load {
        Load::Io | Load::Half => IO_REGISTER,
        Load::Spin | Load::Halt => HALT_REGISTER,
    };
    let values = [
        (system(3, 0, 10, 2, 0), MAIR),
        (system(3, 0, 2, 0, 2), TCR),
        (system(3, 0, 2, 0, 0), TABLE), // TTBR0_EL1
        (system(3, 0, 1, 0, 0), SCTLR),
        (general(0), counter),
        (general(3), register),
        (general(PC), CODE),
        (general(PC + 1), PSTATE),
    ];
    for (id, value) in values {
        vcpu.set_one_reg(id, &value.to_le_bytes())?;
    }
    Ok(())
}

/// Index of the program counter among the general registers: after 31 registers and the stack
/// pointer (struct user_pt_regs, asm/ptrace.h).
const PC: u64 = 32;

/// KVM's id of a general register, in units of 32-bit words (api.rst, KVM_SET_ONE_REG).
fn general(n: u64) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (2 * n)
}

/// KVM's id of a system register, from its encoding in `msr`.
fn system(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    let encoding = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2;
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM64_SYSREG) | encoding
}
