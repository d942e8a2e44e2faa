//! Iterates over packets, and resynchronizes after invalid bytes.

#![forbid(unsafe_code)]

use super::packet::{parse, Block, Packet, Stop, PSB_LEN};
use super::Fault;

/// An iterator over the packets of a trace.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    block: Block,
    lost: bool,
}

/// The result at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Offset of the first byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
    /// What the bytes are.
    pub found: Found,
}

/// Kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A whole packet with a valid payload.
    Packet(Packet),
    /// An error; its bytes are part of the skipped bytes that follow.
    Fault(Fault),
    /// Bytes skipped up to the next PSB.
    Skipped,
    /// An incomplete packet at the end.
    Trailing,
}

impl<'a> Stream<'a> {
    /// A trace with an unknown start: all bytes before the first PSB are skipped.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            lost: true,
            ..Self::synchronised(bytes)
        }
    }

    /// A trace that starts with a packet.
    pub fn synchronised(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            block: Block::None,
            lost: false,
        }
    }

    /// Whether the position of the next packet is unknown.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Offset of the next packet, if it is known and cannot be an item of a block.
    pub(super) fn at_packet(&self) -> Option<usize> {
        (!self.lost && self.block == Block::None).then_some(self.at)
    }

    /// Continues at `at`; the packets before it were decoded elsewhere.
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

/// Offset of the first PSB.
pub fn find_psb(bytes: &[u8]) -> Option<usize> {
    const PSB: [u8; PSB_LEN] = [
        0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02,
        0x82,
    ];
    memchr::memmem::find(bytes, &PSB)
}

/// Whether packets after this one are items of a block. Packets such as timing do not end a block,
/// all others do (as in tools/perf/util/intel-pt-decoder/intel-pt-pkt-decoder.c of Linux; libipt
/// does not support blocks).
#[inline]
pub(crate) fn block_after(block: Block, packet: &Packet) -> Block {
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
