//! The summary computed with the crate `iptr-decoder`, whose decoder calls a visitor for each
//! packet: a fair comparison, which does for each kind of packet only what a summary needs.
//!
//! For traces without errors and TSC clock, and without blocks and event trace, for which that
//! decoder uses other lengths than the SDM: sufficient for the benchmark's traces, whose summaries
//! are compared.

use std::convert::Infallible;
use std::mem::take;
use std::num::NonZero;

use iptr_decoder::{
    decode, DecodeOptions, DecoderContext, HandlePacket, IpReconstructionPattern, PtwPayload,
};
use vcpu_exporter::pt::{Clocks, Histogram, ModeSummary, Summary};

/// Reduces a trace, or returns iptr-decoder's error.
pub(crate) fn summarise(trace: &[u8], clocks: &Clocks) -> Result<Summary, String> {
    let mut visitor = Visitor {
        bus: clocks.bus,
        enabled: true,
        ..Visitor::default()
    };
    decode(trace, DecodeOptions::default(), &mut visitor).map_err(|error| error.to_string())?;
    Ok(visitor.finish())
}

#[derive(Default)]
struct Visitor {
    summary: Summary,
    bus: u64,
    /// Guest, host and unknown mode.
    sides: [ModeSummary; 3],
    picoseconds: [u64; 3],
    here: Here,
    bound: Bound,
    enabled: bool,
    /// `Some` within the status of a PSB; whether it contained a FUP.
    status: Option<bool>,
    cycles: u64,
    /// Picoseconds per cycle, with 32 fractional bits.
    cycle: Option<u64>,
    since_crossing: Option<u64>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Here {
    Guest,
    Host,
    #[default]
    Unknown,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Bound {
    #[default]
    Nothing,
    FupToCome,
    Fup,
    TipToCome,
}

impl Visitor {
    #[inline]
    fn here(&mut self) -> &mut ModeSummary {
        &mut self.sides[self.here as usize]
    }

    #[inline]
    fn branches(&mut self, all: u32, taken: u32) {
        let (all, taken) = (u64::from(all), u64::from(taken));
        self.bound = Bound::Nothing;
        self.status = None;
        let packets = &mut self.summary.packets;
        packets.tnt += 1;
        packets.bits += all;
        packets.taken += taken;
        let here = self.here();
        here.taken += taken;
        here.not_taken += all - taken;
    }

    fn settle(&mut self) {
        let cycles = take(&mut self.cycles);
        if cycles == 0 || !self.enabled {
            return;
        }
        self.here().cycles += cycles;
        if let Some(cycle) = self.cycle {
            let picoseconds = ((u128::from(cycles) * u128::from(cycle)) >> 32) as u64;
            self.picoseconds[self.here as usize] += picoseconds;
            if let Some(since) = &mut self.since_crossing {
                *since += picoseconds;
            }
        }
    }

    fn switched(&mut self, on: bool) {
        self.settle();
        if !on && self.bound == Bound::Fup {
            self.here().asynchronous += 1;
        }
        self.status = None;
        self.bound = Bound::Nothing;
        self.enabled = on;
        self.since_crossing = None;
    }

    fn owns_next_fup(&mut self) {
        if self.status.is_none() && self.bound == Bound::Nothing {
            self.bound = Bound::FupToCome;
        }
    }

    fn cross(&mut self, to: Here) {
        let (count, lengths) = match to {
            Here::Guest => (&mut self.summary.entries, &mut self.summary.host_handling),
            _ => (&mut self.summary.exits, &mut self.summary.guest_runs),
        };
        *count += 1;
        if let Some(picoseconds) = self.since_crossing {
            lengths.observe(picoseconds / 1000);
        }
        self.since_crossing = self.cycle.map(|_| 0);
        self.bound = Bound::TipToCome;
    }

    fn finish(mut self) -> Summary {
        self.settle();
        if self.summary.packets.cyc == 0 {
            self.summary.guest_runs = Histogram::default();
            self.summary.host_handling = Histogram::default();
        }
        for (side, picoseconds) in self.sides.iter_mut().zip(self.picoseconds) {
            side.nanoseconds = picoseconds / 1000;
        }
        [self.summary.guest, self.summary.host, self.summary.unknown] = self.sides;
        self.summary
    }
}

type Done = Result<(), Infallible>;

impl HandlePacket for Visitor {
    type Error = Infallible;

    fn at_decode_begin(&mut self) -> Done {
        Ok(())
    }

    #[inline]
    fn on_short_tnt_packet(&mut self, _: &DecoderContext, byte: NonZero<u8>, bits: u32) -> Done {
        self.branches(bits, byte.get().count_ones() - 1);
        Ok(())
    }

    #[inline]
    fn on_long_tnt_packet(&mut self, _: &DecoderContext, bytes: NonZero<u64>, top: u32) -> Done {
        self.branches(top.wrapping_add(1), bytes.get().count_ones() - 1);
        Ok(())
    }

    #[inline]
    fn on_tip_packet(&mut self, _: &DecoderContext, _: IpReconstructionPattern) -> Done {
        self.summary.packets.tip += 1;
        self.status = None;
        match take(&mut self.bound) {
            Bound::Fup => self.here().asynchronous += 1,
            Bound::TipToCome => {}
            Bound::Nothing | Bound::FupToCome => self.here().indirect += 1,
        }
        Ok(())
    }

    fn on_tip_pgd_packet(&mut self, _: &DecoderContext, _: IpReconstructionPattern) -> Done {
        self.summary.packets.pgd += 1;
        self.switched(false);
        Ok(())
    }

    fn on_tip_pge_packet(&mut self, _: &DecoderContext, _: IpReconstructionPattern) -> Done {
        self.summary.packets.pge += 1;
        self.switched(true);
        Ok(())
    }

    fn on_fup_packet(&mut self, _: &DecoderContext, _: IpReconstructionPattern) -> Done {
        self.summary.packets.fup += 1;
        if let Some(had_fup) = &mut self.status {
            *had_fup = true;
            return Ok(());
        }
        if !self.enabled {
            self.settle();
            self.enabled = true;
        }
        self.bound = match self.bound {
            Bound::FupToCome => Bound::Nothing,
            _ => Bound::Fup,
        };
        Ok(())
    }

    #[inline]
    fn on_pad_packet(&mut self, _: &DecoderContext) -> Done {
        self.summary.packets.pad += 1;
        Ok(())
    }

    #[inline]
    fn on_cyc_packet(&mut self, _: &DecoderContext, bytes: &[u8]) -> Done {
        let mut cycles = u64::from(bytes[0] >> 3);
        let mut shift = 5;
        for byte in &bytes[1..] {
            cycles |= u64::from(byte >> 1) << shift;
            shift += 7;
        }
        let packets = &mut self.summary.packets;
        packets.cyc += 1;
        packets.cycsum += cycles;
        self.cycles += cycles;
        Ok(())
    }

    fn on_mode_packet(&mut self, _: &DecoderContext, leaf: u8, mode: u8) -> Done {
        self.summary.packets.mode += 1;
        if leaf == 0 || mode & 2 == 0 {
            self.owns_next_fup();
        }
        Ok(())
    }

    fn on_mtc_packet(&mut self, _: &DecoderContext, _: u8) -> Done {
        self.summary.packets.mtc += 1;
        Ok(())
    }

    fn on_tsc_packet(&mut self, _: &DecoderContext, _: u64) -> Done {
        self.summary.packets.tsc += 1;
        Ok(())
    }

    fn on_cbr_packet(&mut self, _: &DecoderContext, ratio: u8) -> Done {
        self.summary.packets.cbr += 1;
        self.settle();
        let hertz = u128::from(ratio) * u128::from(self.bus);
        let picoseconds = 1_000_000_000_000_u128 << 32;
        self.cycle = picoseconds.checked_div(hertz).map(|cycle| cycle as u64);
        let (least, most) = self.summary.ratio.unwrap_or((ratio, ratio));
        self.summary.ratio = Some((least.min(ratio), most.max(ratio)));
        Ok(())
    }

    fn on_tma_packet(&mut self, _: &DecoderContext, _: u16, _: u8, _: bool) -> Done {
        self.summary.packets.tma += 1;
        Ok(())
    }

    fn on_vmcs_packet(&mut self, _: &DecoderContext, _: u64) -> Done {
        self.summary.packets.vmcs += 1;
        Ok(())
    }

    fn on_ovf_packet(&mut self, _: &DecoderContext) -> Done {
        self.summary.packets.ovf += 1;
        self.settle();
        self.here = Here::Unknown;
        self.status = None;
        self.since_crossing = None;
        self.bound = Bound::FupToCome;
        Ok(())
    }

    fn on_psb_packet(&mut self, _: &DecoderContext) -> Done {
        self.summary.packets.psb += 1;
        self.status = Some(false);
        Ok(())
    }

    fn on_psbend_packet(&mut self, _: &DecoderContext) -> Done {
        self.summary.packets.psbend += 1;
        if let Some(had_fup) = self.status.take() {
            if self.enabled != had_fup {
                self.settle();
                self.enabled = had_fup;
            }
        }
        Ok(())
    }

    fn on_pip_packet(&mut self, _: &DecoderContext, _: u64, non_root: bool) -> Done {
        self.summary.packets.pip += 1;
        self.summary.packets.pipnr += u64::from(non_root);
        let to = if non_root { Here::Guest } else { Here::Host };
        let from = self.here;
        if from == to {
            if self.status.is_none() {
                self.here().address_spaces += 1;
            }
            return Ok(());
        }
        self.settle();
        self.here = to;
        if self.status.is_none() && (from != Here::Unknown || self.bound == Bound::Fup) {
            self.cross(to);
        } else {
            self.since_crossing = None;
        }
        Ok(())
    }

    fn on_trace_stop_packet(&mut self, _: &DecoderContext) -> Done {
        self.summary.packets.other += 1;
        Ok(())
    }

    fn on_mnt_packet(&mut self, _: &DecoderContext, _: u64) -> Done {
        self.summary.packets.other += 1;
        Ok(())
    }

    fn on_ptw_packet(&mut self, _: &DecoderContext, ip: bool, _: PtwPayload) -> Done {
        self.summary.packets.other += 1;
        self.status = None;
        if ip {
            self.owns_next_fup();
        }
        Ok(())
    }

    fn on_exstop_packet(&mut self, _: &DecoderContext, ip: bool) -> Done {
        self.summary.packets.other += 1;
        self.summary.power.stops += 1;
        if ip {
            self.owns_next_fup();
        }
        Ok(())
    }

    fn on_mwait_packet(&mut self, _: &DecoderContext, _: u8, _: u8) -> Done {
        self.summary.packets.other += 1;
        self.summary.power.mwait += 1;
        Ok(())
    }

    fn on_pwre_packet(&mut self, _: &DecoderContext, _: bool, _: u8, _: u8) -> Done {
        self.summary.packets.other += 1;
        self.summary.power.entries += 1;
        Ok(())
    }

    fn on_pwrx_packet(&mut self, _: &DecoderContext, _: u8, _: u8, _: u8) -> Done {
        self.summary.packets.other += 1;
        self.summary.power.exits += 1;
        Ok(())
    }
}
