//! A real QEMU guest that halts until its timer interrupts it, and counts the interrupts.
//!
//! Interrupt controller and timer are KVM's own, so KVM handles the halts. The count is in guest
//! memory, which is a file on the host: it is read there, independently of QEMU, KVM and
//! tracepoints.

// Clippy recognizes tests by their attribute, not their helpers.
#![allow(clippy::expect_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::real_vms::{qemu, Guest};
use super::run::{eventually, unique, Frozen};

/// Offset of the count in guest memory.
const COUNT: u64 = 0x1000;

/// A real-mode firmware, which is the only guest code. It is mapped at f000:0000.
///
/// The timer is channel 0 of an i8254 at 1,193,182 Hz, divided by 2,386: 500 interrupts per second.
/// They reach the CPU only through an i8259, because the local APIC is disabled (IA32_APIC_BASE,
/// bit 11).
#[rustfmt::skip]
const MAIN: &[u8] = &[
    0x31, 0xc0,                         // xor ax, ax
    0x8e, 0xd8,                         // mov ds, ax
    0x8e, 0xd0,                         // mov ss, ax
    0xbc, 0x00, 0x70,                   // mov sp, 0x7000
    0xc7, 0x06, 0x20, 0x00, 0x80, 0x00, // mov word [8 * 4], 0x80: offset of HANDLER
    0x8c, 0x0e, 0x22, 0x00,             // mov [8 * 4 + 2], cs
    0xb0, 0x11,                         // mov al, 0x11: initialise, cascaded, four words
    0xe6, 0x20,                         // out 0x20, al
    0xb0, 0x08,                         // mov al, 8: IRQ 0 is vector 8
    0xe6, 0x21,                         // out 0x21, al
    0xb0, 0x04,                         // mov al, 4: the other i8259 is at IRQ 2
    0xe6, 0x21,                         // out 0x21, al
    0xb0, 0x01,                         // mov al, 1: 8086 mode, ended by software
    0xe6, 0x21,                         // out 0x21, al
    0xb0, 0xfe,                         // mov al, 0xfe: all masked but IRQ 0
    0xe6, 0x21,                         // out 0x21, al
    0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, 0x1b: IA32_APIC_BASE
    0x0f, 0x32,                         // rdmsr
    0x80, 0xe4, 0xf7,                   // and ah, 0xf7: without bit 11
    0x0f, 0x30,                         // wrmsr
    0xb0, 0x34,                         // mov al, 0x34: channel 0, both bytes, mode 2
    0xe6, 0x43,                         // out 0x43, al
    0xb0, 0x52,                         // mov al, 0x52: 2,386 is 0x0952
    0xe6, 0x40,                         // out 0x40, al
    0xb0, 0x09,                         // mov al, 0x09
    0xe6, 0x40,                         // out 0x40, al
    0xfb,                               // sti
    0xf4,                               // hlt
    0xeb, 0xfc,                         // jmp to the sti
];

/// One port write per interrupt.
#[rustfmt::skip]
const HANDLER: &[u8] = &[
    0x66, 0xff, 0x06, 0x00, 0x10, // inc dword [COUNT]
    0xb0, 0x20,                   // mov al, 0x20: end of interrupt
    0xe6, 0x20,                   // out 0x20, al
    0xcf,                         // iret
];

/// The CPU's reset vector: f000:fff0.
const RESET: &[u8] = &[0xea, 0x00, 0x00, 0x00, 0xf0]; // jmp 0xf000:0

fn firmware() -> Vec<u8> {
    let mut image = vec![0; 1 << 16];
    for (at, code) in [(0, MAIN), (0x80, HANDLER), (0xfff0, RESET)] {
        image[at..at + code.len()].copy_from_slice(code);
    }
    image
}

/// The guest, after its first interrupt.
pub(crate) struct TimerGuest {
    guest: Guest,
    name: String,
    memory: File,
    _dir: TempDir,
}

impl TimerGuest {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (bios, ram) = (dir.path().join("bios"), dir.path().join("ram"));
        fs::write(&bios, firmware()).expect("the firmware is written");
        let name = unique("timer");
        let guest = qemu(&[
            "-name",
            &format!("guest={name},debug-threads=on"),
            "-bios",
            &bios.display().to_string(),
            "-object",
            &format!(
                "memory-backend-file,id=ram,size=32M,share=on,mem-path={}",
                ram.display()
            ),
            "-machine",
            "pc,memory-backend=ram",
            // Interrupts that are due while it is stopped must not arrive in a burst without a halt
            // between them.
            "-global",
            "kvm-pit.lost_tick_policy=discard",
        ]);
        let memory = eventually(|| {
            let file = File::open(&ram).ok()?;
            (file.metadata().ok()?.len() > COUNT).then_some(file)
        });
        let timer = Self {
            guest,
            name,
            memory: memory.expect("QEMU makes its memory"),
            _dir: dir,
        };
        timer.wait(1);
        timer
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Number of interrupts so far.
    pub(crate) fn interrupts(&self) -> u32 {
        let mut count = [0; 4];
        let read = self.memory.read_exact_at(&mut count, COUNT);
        read.expect("its memory can be read");
        u32::from_le_bytes(count)
    }

    /// Waits for this number of further interrupts.
    pub(crate) fn wait(&self, more: u32) {
        let wanted = self.interrupts() + more;
        let came = eventually(|| (self.interrupts() >= wanted).then_some(()));
        came.expect("the guest's timer interrupts it");
    }

    /// Stops the guest while `look` runs; also returns its counts before and after.
    pub(crate) fn stopped<T>(&self, look: impl FnOnce() -> T) -> (u32, T, u32) {
        let _frozen = Frozen::new(self.guest.pid());
        let before = self.interrupts();
        let seen = look();
        (before, seen, self.interrupts())
    }
}
