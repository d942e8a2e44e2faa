//! Writes Intel PT: packets by name, and traces of a simulated vCPU with known contents.
//!
//! - [`Encoder`] appends packets to bytes.
//! - [`vcpu::generate`] makes a trace from a seed, with its expected summary.
//! - [`vcpu::realistic`] makes bytes in the proportions of a busy vCPU, for benchmarks.
//!
//! Layouts: Intel SDM volume 3, section 33.4.2. Nothing is taken from the decoder: an error would
//! have to be made twice to go unnoticed.
// Each test program uses a part of this module.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]

#[path = "pt_encoder/random.rs"]
pub mod random;
#[path = "pt_encoder/vcpu.rs"]
pub mod vcpu;

/// Appends packets to bytes. IPs are compressed against the last IP as a processor does.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    pub bytes: Vec<u8>,
    last_ip: u64,
}

/// The low five bits of packets with an IP.
#[derive(Debug, Clone, Copy)]
pub enum IpPacket {
    Tip = 0x0d,
    TipPge = 0x11,
    TipPgd = 0x01,
    Fup = 0x1d,
}

impl Encoder {
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn put_le(&mut self, head: &[u8], number: u64, len: usize) {
        self.put(head);
        self.put(&number.to_le_bytes()[..len]);
    }

    pub fn pad(&mut self) {
        self.put(&[0]);
    }

    /// TNT-8: `bits` below bit `len` (1 to 6), oldest branch highest.
    pub fn tnt8(&mut self, bits: u64, len: u32) {
        assert!((1..=6).contains(&len) && bits < 1 << len);
        self.put(&[((1 << len | bits) << 1) as u8]);
    }

    /// TNT-64: as TNT-8, up to 47.
    pub fn tnt64(&mut self, bits: u64, len: u32) {
        assert!((1..=47).contains(&len) && bits < 1 << len);
        self.put_le(&[0x02, 0xa3], 1 << len | bits, 6);
    }

    /// A packet with an IP in as few bytes as the last IP allows; `None` is a suppressed IP.
    pub fn ip(&mut self, packet: IpPacket, ip: Option<u64>) {
        let Some(ip) = ip else {
            return self.put(&[packet as u8]);
        };
        let changed = ip ^ self.last_ip;
        let extended = ((ip << 16) as i64 >> 16) as u64 == ip;
        self.last_ip = ip;
        let (compression, len) = match changed {
            _ if changed >> 16 == 0 => (1, 2),
            _ if changed >> 32 == 0 => (2, 4),
            _ if extended => (3, 6),
            _ if changed >> 48 == 0 => (4, 6),
            _ => (6, 8),
        };
        self.put_le(&[compression << 5 | packet as u8], ip, len);
    }

    pub fn cyc(&mut self, cycles: u64) {
        let mut rest = cycles >> 5;
        self.put(&[(cycles as u8) << 3 | u8::from(rest > 0) << 2 | 3]);
        while rest > 0 {
            let payload = (rest as u8 & 0x7f) << 1;
            rest >>= 7;
            self.put(&[payload | u8::from(rest > 0)]);
        }
    }

    /// MODE.Exec: CS.L, CS.D, RFLAGS.IF.
    pub fn mode_exec(&mut self, long: bool, default: bool, interrupts: bool) {
        let bits = u8::from(long) | u8::from(default) << 1 | u8::from(interrupts) << 2;
        self.put(&[0x99, bits]);
    }

    pub fn mode_tsx(&mut self, in_transaction: bool, aborted: bool) {
        let bits = u8::from(in_transaction) | u8::from(aborted) << 1;
        self.put(&[0x99, 1 << 5 | bits]);
    }

    pub fn tsc(&mut self, tsc: u64) {
        self.put_le(&[0x19], tsc, 7);
    }

    pub fn mtc(&mut self, ctc: u8) {
        self.put(&[0x59, ctc]);
    }

    pub fn tma(&mut self, ctc: u16, fast: u16) {
        let [c0, c1] = ctc.to_le_bytes();
        let [f0, f1] = fast.to_le_bytes();
        self.put(&[0x02, 0x73, c0, c1, 0, f0, f1 & 1]);
    }

    /// A guest's TMA with erratum SKZ84: a reserved byte that is not 0, and one more byte.
    pub fn tma_skz84(&mut self, reserved: u8, more: u8) {
        assert!(reserved > 0);
        self.put(&[0x02, 0x73, 1, 1, reserved, 1, 0, more]);
    }

    pub fn cbr(&mut self, ratio: u8) {
        self.put(&[0x02, 0x03, ratio, 0]);
    }

    pub fn psb(&mut self) {
        self.last_ip = 0;
        self.put(&[0x02, 0x82].repeat(8));
    }

    pub fn psbend(&mut self) {
        self.put(&[0x02, 0x23]);
    }

    pub fn pip(&mut self, non_root: bool, cr3: u64) {
        self.put_le(&[0x02, 0x43], cr3 >> 5 << 1 | u64::from(non_root), 6);
    }

    pub fn vmcs(&mut self, address: u64) {
        self.put_le(&[0x02, 0xc8], address >> 12, 5);
    }

    pub fn ovf(&mut self) {
        self.put(&[0x02, 0xf3]);
    }

    pub fn trace_stop(&mut self) {
        self.put(&[0x02, 0x83]);
    }

    pub fn mnt(&mut self, payload: u64) {
        self.put_le(&[0x02, 0xc3, 0x88], payload, 8);
    }

    pub fn ptwrite(&mut self, payload: u64, wide: bool, ip: bool) {
        let second = 0x12 | u8::from(wide) << 5 | u8::from(ip) << 7;
        self.put_le(&[0x02, second], payload, if wide { 8 } else { 4 });
    }

    pub fn exstop(&mut self, ip: bool) {
        self.put(&[0x02, 0x62 | u8::from(ip) << 7]);
    }

    pub fn mwait(&mut self, hints: u8, extensions: u8) {
        self.put(&[0x02, 0xc2, hints, 0, 0, 0, extensions, 0, 0, 0]);
    }

    pub fn pwre(&mut self, hardware: bool, state: u8, sub_state: u8) {
        let states = state << 4 | sub_state;
        self.put(&[0x02, 0x22, u8::from(hardware) << 7, states]);
    }

    pub fn pwrx(&mut self, last: u8, deepest: u8, wake: u8) {
        self.put(&[0x02, 0xa2, last << 4 | deepest, wake, 0, 0, 0]);
    }

    pub fn bbp(&mut self, kind: u8, short: bool) {
        self.put(&[0x02, 0x63, kind | u8::from(short) << 7]);
    }

    pub fn bip(&mut self, id: u8, payload: u64, short: bool) {
        self.put_le(&[id << 3 | 4], payload, if short { 4 } else { 8 });
    }

    pub fn bep(&mut self, ip: bool) {
        self.put(&[0x02, 0x33 | u8::from(ip) << 7]);
    }

    pub fn cfe(&mut self, kind: u8, vector: u8, ip: bool) {
        self.put(&[0x02, 0x13, kind | u8::from(ip) << 7, vector]);
    }

    pub fn evd(&mut self, kind: u8, payload: u64) {
        self.put_le(&[0x02, 0x53, kind], payload, 8);
    }

    pub fn trig(&mut self, triggers: u8, ip: bool, multiple: bool, instructions: Option<u16>) {
        let flags =
            u8::from(ip) << 7 | u8::from(instructions.is_some()) << 6 | u8::from(multiple) << 5;
        self.put(&[0xd9, flags, triggers]);
        if let Some(instructions) = instructions {
            self.put(&instructions.to_le_bytes());
        }
    }
}
