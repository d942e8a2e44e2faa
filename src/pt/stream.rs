//! Packets one after the other, and the way back after bytes that are none.

#![forbid(unsafe_code)]

use super::packet::{parse, Block, Packet, Stop, PSB_LEN};
use super::Fault;

/// Walks the packets of a trace.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    block: Block,
    lost: bool,
}

/// What was found at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Offset of its first byte.
    pub offset: usize,
    /// How many bytes it is.
    pub len: usize,
    /// What it is.
    pub found: Found,
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A packet.
    Packet(Packet),
    /// An error; what it covers is part of the skipped bytes that follow.
    Fault(Fault),
    /// Bytes passed over on the way to the next PSB.
    Skipped,
    /// A last packet that is not whole.
    Trailing,
}

impl<'a> Stream<'a> {
    /// A trace whose packets begin who knows where: all up to the first PSB is skipped.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            lost: true,
            ..Self::synchronised(bytes)
        }
    }

    /// A trace that begins with a packet.
    pub fn synchronised(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            block: Block::None,
            lost: false,
        }
    }

    /// Whether the next packet's place is not known.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Where the next packet begins, if that is known and it cannot be an item of a block.
    pub(super) fn at_packet(&self) -> Option<usize> {
        (!self.lost && self.block == Block::None).then_some(self.at)
    }

    /// Goes on at `at`, up to where somebody else has read the packets.
    pub(super) fn resume_at(&mut self, at: usize) {
        self.at = at;
    }

    fn step(&mut self, len: usize, found: Found) -> Step {
        let offset = self.at;
        self.at += len;
        Step { offset, len, found }
    }

    fn packet(&mut self) -> Step {
        match parse(&self.bytes[self.at..], self.block) {
            Ok((packet, len)) => {
                self.block = block_after(self.block, &packet);
                self.step(len, Found::Packet(packet))
            }
            Err(Stop::End) => {
                let rest = self.bytes.len() - self.at;
                self.step(rest, Found::Trailing)
            }
            Err(Stop::Fault(fault)) => {
                self.lost = true;
                self.block = Block::None;
                self.step(0, Found::Fault(fault))
            }
        }
    }
}

impl Iterator for Stream<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.at >= self.bytes.len() {
            return None;
        }
        if self.lost {
            let to = find_psb(&self.bytes[self.at..]);
            self.lost = to.is_none();
            let skipped = to.unwrap_or(self.bytes.len() - self.at);
            if skipped > 0 {
                return Some(self.step(skipped, Found::Skipped));
            }
        }
        Some(self.packet())
    }
}

/// Where the first PSB begins.
pub fn find_psb(bytes: &[u8]) -> Option<usize> {
    const PSB: [u8; PSB_LEN] = [
        0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02,
        0x82,
    ];
    memchr::memmem::find(bytes, &PSB)
}

/// Whether packets after this one are items of a block. Timing and the like goes on inside of a
/// block, anything else ends it (as in tools/perf/util/intel-pt-decoder/intel-pt-pkt-decoder.c of
/// Linux; libipt knows no blocks).
#[inline]
pub fn block_after(block: Block, packet: &Packet) -> Block {
    match packet {
        Packet::Bbp { short: true, .. } => Block::Short,
        Packet::Bbp { short: false, .. } => Block::Long,
        Packet::Pad
        | Packet::Tsc(_)
        | Packet::Tma(_)
        | Packet::Mtc(_)
        | Packet::Fup(_)
        | Packet::Cyc(_)
        | Packet::Cbr(_)
        | Packet::Mnt(_)
        | Packet::ExStop { .. }
        | Packet::Pwre { .. }
        | Packet::Pwrx { .. }
        | Packet::Bip { .. } => block,
        _ => Block::None,
    }
}

#[cfg(test)]
mod tests;
