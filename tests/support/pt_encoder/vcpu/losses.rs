//! Losses in a trace: overflows, invalid bytes, cuts.

use vcpu_exporter::pt::{Fault, FaultAt, Summary};

use super::events::{self, Event};
use super::{Vcpu, RATIOS};

impl Vcpu {
    /// The trace no longer shows the mode.
    pub(super) fn lose(&mut self) {
        self.told = false;
        self.run = None;
        self.tsc_before = None;
    }

    pub(super) fn overflow(&mut self) {
        const INSTEAD: &[Event] = &[events::branches, Vcpu::psb];
        self.out.ovf();
        self.truth.packets.ovf += 1;
        self.lose();
        if self.enabled && self.random.one_in(4) {
            // The FUP is missing (erratum SKD010): a branch or a PSB follows.
            let what = self.random.pick(INSTEAD);
            return what(self);
        }
        if self.enabled || self.random.flag() {
            self.fup();
            self.enabled = true;
        } else {
            self.pge();
        }
    }

    /// Bytes that start no packet and contain no PSB.
    pub(super) fn garbage(&mut self, len: u64) {
        for _ in 0..len {
            let byte = self.random.next() as u8;
            self.out.put(&[if byte == 0x02 { 0x05 } else { byte }]);
        }
        self.truth.skipped_bytes += len;
    }

    pub(super) fn leading_garbage(&mut self) {
        if self.random.flag() {
            let len = self.random.scaled(8);
            self.garbage(len);
        }
    }

    /// An invalid packet, with everything lost up to the next PSB.
    pub(super) fn bad(&mut self) {
        const BAD: &[(&[u8], Fault)] = &[
            (&[0x05], Fault::Unknown),
            (&[0x39, 0x00], Fault::Unknown),
            (&[0x02, 0x01], Fault::Unknown),
            (&[0x02, 0xc3, 0x01], Fault::Unknown),
            (&[0x99, 0xe0], Fault::Malformed("MODE")),
            (&[0x99, 0x03], Fault::Malformed("MODE")),
            (&[0xad], Fault::Malformed("TIP or FUP")),
            (&[0x02, 0x82, 0x03], Fault::Malformed("PSB")),
            (&[0x02, 0x52], Fault::Malformed("PTWRITE")),
            (&[0x02, 0xa3, 1, 0, 0, 0, 0, 0], Fault::Malformed("TNT")),
            (&[0xff; 10], Fault::Malformed("CYC")),
        ];
        let (bytes, fault) = self.random.pick(BAD);
        let offset = self.out.bytes.len();
        self.truth.packets.err += 1;
        if self.truth.errors.len() < Summary::ERRORS {
            self.truth.errors.push(FaultAt { offset, fault });
        }
        self.out.put(bytes);
        self.truth.skipped_bytes += bytes.len() as u64;
        self.lose();
        let len = self.random.scaled(6);
        self.garbage(len);
        if self.random.one_in(4) {
            self.cuts.push(self.out.bytes.len());
            self.cycle = None;
            let len = self.random.scaled(6);
            self.garbage(len);
        }
        self.psb();
    }

    /// The first bytes of a packet at the end of a part.
    pub(super) fn partial(&mut self) {
        const PACKETS: &[&[u8]] = &[
            &[0x19, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82],
            &[0x02, 0x82, 0x02, 0x82, 0x02],
            &[0x02, 0x73, 1, 1, 1, 1, 0],
            &[0xcd, 1, 2, 3, 4, 5, 6, 7],
            &[0xff, 0xff, 0xff],
        ];
        let packet = self.random.pick(PACKETS);
        let len = 1 + self.random.below(packet.len() as u64) as usize;
        self.out.put(&packet[..len]);
        self.truth.trailing_bytes += len as u64;
    }

    /// The thread leaves the CPU and returns, possibly to another one: the next AUX record.
    pub(super) fn cut(&mut self) {
        if self.enabled && !self.random.one_in(4) {
            self.cyc();
            self.pgd();
        }
        if self.random.one_in(4) {
            self.partial();
        }
        self.cuts.push(self.out.bytes.len());
        self.lose();
        self.cycle = None;
        self.guest = false;
        self.ratio = self.random.pick(RATIOS);
        if self.random.flag() {
            self.tsc();
        }
        if !self.enabled {
            self.pge();
        }
        if self.random.flag() {
            self.psb();
        }
    }
}
