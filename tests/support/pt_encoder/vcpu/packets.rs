//! Packets and their direct effect on the expected summary.

use super::super::IpPacket;
use super::Vcpu;

impl Vcpu {
    /// Cycles until the next packet.
    pub(super) fn cyc(&mut self) {
        if !self.style.cyc {
            return;
        }
        let cycles = match self.random.below(400) {
            0 => self.random.scaled(30),
            1..50 => self.random.scaled(12),
            _ => 1 + self.random.below(31),
        };
        self.out.cyc(cycles);
        self.truth.packets.cyc += 1;
        self.truth.packets.cycsum += cycles;
        if !self.enabled {
            return;
        }
        self.here().cycles += cycles;
        if let Some(cycle) = self.cycle {
            let side = self.side();
            self.picoseconds[side] += cycles * cycle;
            self.run = self.run.map(|run| run + cycles * cycle);
        }
    }

    /// The next address: near, in the same 4 GiB, or far.
    pub(super) fn jump(&mut self) -> u64 {
        const FAR: &[u64] = &[
            0x0000_5555_5555_4000,
            0x0000_7fff_f7dd_0000,
            0xffff_ffff_8100_0000,
            0xffff_ffff_c000_0000,
            0xffff_8880_0000_0000,
            0x00ff_8880_0000_0000,
        ];
        self.ip = match self.random.below(16) {
            0 => self.random.pick(FAR) + self.random.scaled(24),
            1..8 => self.ip & !0xffff_ffff | self.random.next() & 0xffff_ffff,
            _ => self.ip & !0xffff | self.random.next() & 0xffff,
        };
        self.ip
    }

    pub(super) fn ip_packet(&mut self, packet: IpPacket, ip: Option<u64>) {
        self.out.ip(packet, ip);
        let packets = &mut self.truth.packets;
        *match packet {
            IpPacket::Tip => &mut packets.tip,
            IpPacket::TipPge => &mut packets.pge,
            IpPacket::TipPgd => &mut packets.pgd,
            IpPacket::Fup => &mut packets.fup,
        } += 1;
    }

    pub(super) fn tip(&mut self) {
        let ip = self.jump();
        self.ip_packet(IpPacket::Tip, Some(ip));
    }

    pub(super) fn fup(&mut self) {
        let ip = self.ip & !0xff | self.random.below(256);
        self.ip_packet(IpPacket::Fup, Some(ip));
    }

    /// An optional FUP.
    pub(super) fn fup_if(&mut self, ip: bool) {
        if ip {
            self.fup();
        }
    }

    pub(super) fn pge(&mut self) {
        let ip = self.jump();
        self.ip_packet(IpPacket::TipPge, Some(ip));
        self.enabled = true;
        self.switched();
    }

    pub(super) fn pgd(&mut self) {
        let ip = self.random.flag().then(|| self.jump());
        self.ip_packet(IpPacket::TipPgd, ip);
        self.enabled = false;
        self.switched();
    }

    pub(super) fn switched(&mut self) {
        self.run = None;
        self.tsc_before = None;
    }

    /// PIP; the caller records whether it was an event.
    pub(super) fn pip(&mut self) {
        let cr3 = self.random.scaled(40) << 12;
        self.out.pip(self.guest, cr3);
        self.truth.packets.pip += 1;
        self.truth.packets.pipnr += u64::from(self.guest);
    }

    pub(super) fn vmcs(&mut self) {
        let address = self.random.scaled(40) << 12;
        self.out.vmcs(address);
        self.truth.packets.vmcs += 1;
    }

    pub(super) fn tsc(&mut self) {
        // In the other mode it can decrease, because it has another offset there.
        self.tsc += 1 + self.random.scaled(20);
        let now = self.tsc;
        self.out.tsc(now);
        self.truth.packets.tsc += 1;
        if let (Some(before), true) = (self.tsc_before, self.enabled) {
            let side = self.side();
            self.ticks[side] += now - before;
        }
        self.tsc_before = Some(now);
    }

    pub(super) fn tma(&mut self) {
        if self.guest && self.random.flag() {
            let (reserved, more) = (1 + self.random.below(255), self.random.below(256));
            self.out.tma_skz84(reserved as u8, more as u8);
        } else {
            let (ctc, fast) = (self.random.next(), self.random.below(512));
            self.out.tma(ctc as u16, fast as u16);
        }
        self.truth.packets.tma += 1;
    }

    pub(super) fn cbr(&mut self) {
        let ratio = self.ratio;
        self.out.cbr(ratio);
        self.truth.packets.cbr += 1;
        self.cycle = Some(10_000 / u64::from(ratio));
        let (least, most) = self.truth.ratio.unwrap_or((ratio, ratio));
        self.truth.ratio = Some((least.min(ratio), most.max(ratio)));
    }

    pub(super) fn mode_exec(&mut self) {
        let (long, default, interrupts) = self.random.pick(&[
            (true, false, true),
            (true, false, false),
            (false, true, true),
            (false, false, false),
        ]);
        self.out.mode_exec(long, default, interrupts);
        self.truth.packets.mode += 1;
    }

    pub(super) fn mode_tsx(&mut self, in_transaction: bool, aborted: bool) {
        self.out.mode_tsx(in_transaction, aborted);
        self.truth.packets.mode += 1;
    }

    pub(super) fn other(&mut self) {
        self.truth.packets.other += 1;
    }

    pub(super) fn pad(&mut self, n: u64) {
        for _ in 0..n {
            self.out.pad();
        }
        self.truth.packets.pad += n;
    }

    /// PSB, the present state, PSBEND.
    pub(super) fn psb(&mut self) {
        self.next_psb = self.out.bytes.len() + self.style.psb_period;
        self.out.psb();
        self.truth.packets.psb += 1;
        self.tsc();
        if self.style.mtc {
            self.tma();
        }
        self.cbr();
        if self.style.losses && self.random.one_in(20) {
            // The processor's buffer was full: there is no PSBEND.
            return self.overflow();
        }
        let n = self.random.below(3);
        self.pad(n);
        if !self.random.one_in(8) {
            // Without it, kernel code is not traced.
            self.pip();
            if !self.told {
                self.tsc_before = None;
            }
            self.told = true;
            if self.random.flag() {
                self.vmcs();
            }
        }
        if self.random.one_in(4) {
            self.mode_tsx(false, false);
        }
        self.mode_exec();
        self.fup_if(self.enabled);
        self.out.psbend();
        self.truth.packets.psbend += 1;
    }
}
