//! Instruction pointers, which packets compress by omitting the bytes that equal the last one's.

#![forbid(unsafe_code)]

use super::{le, Stop};
use crate::pt::Fault;

/// An instruction pointer as encoded in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// IPBytes, the type of compression: 0, 1, 2, 3, 4 or 6.
    pub compression: u8,
    /// The encoded bytes as a number.
    pub payload: u64,
}

impl Ip {
    /// Payload bytes for each value of IPBytes: SDM volume 3, table "TIP/FUP IP Reconstruction".
    const LENGTHS: [Option<usize>; 8] = [
        Some(0),
        Some(2),
        Some(4),
        Some(6),
        Some(6),
        None,
        Some(8),
        None,
    ];

    /// Decodes the IP of a packet whose first byte has IPBytes in its highest bits; returns the
    /// packet's length.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), Stop> {
        let compression = bytes[0] >> 5;
        let len = Self::LENGTHS[usize::from(compression)];
        let len = len.ok_or(Stop::Fault(Fault::Malformed("TIP or FUP")))?;
        let payload = le(bytes, 1, len)?;
        Ok((
            Self {
                compression,
                payload,
            },
            1 + len,
        ))
    }
}

/// The last instruction pointer, from which the next is decompressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastIp(u64);

impl LastIp {
    /// Resets it, as a PSB does.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// The address of `ip`; `None` if it encodes no address. The last one then stays.
    pub fn update(&mut self, ip: Ip) -> Option<u64> {
        const LOW_16: u64 = 0xffff;
        const LOW_32: u64 = 0xffff_ffff;
        const LOW_48: u64 = 0xffff_ffff_ffff;
        self.0 = match ip.compression {
            1 => self.0 & !LOW_16 | ip.payload,
            2 => self.0 & !LOW_32 | ip.payload,
            // Sign-extended from bit 47.
            3 => ((ip.payload << 16) as i64 >> 16) as u64,
            4 => self.0 & !LOW_48 | ip.payload,
            6 => ip.payload,
            _ => return None,
        };
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(compression: u8, payload: u64) -> Ip {
        Ip {
            compression,
            payload,
        }
    }

    #[test]
    fn an_ip_is_made_of_the_last_one() {
        let mut last = LastIp::default();
        // Steps of one trace: each depends on the one before.
        let steps = [
            (ip(0, 0), None),
            (ip(1, 0x1234), Some(0x1234)),
            (ip(2, 0x8000_0000), Some(0x8000_0000)),
            (ip(3, 0x7fff_ffff_0000), Some(0x7fff_ffff_0000)),
            (ip(1, 0xabcd), Some(0x7fff_ffff_abcd)),
            // Sign-extended from bit 47.
            (ip(3, 0x8000_0000_0001), Some(0xffff_8000_0000_0001)),
            (ip(2, 0x1111_2222), Some(0xffff_8000_1111_2222)),
            (ip(6, 0x0a00_cccc_dddd_eeee), Some(0x0a00_cccc_dddd_eeee)),
            // Not sign-extended: the highest 16 bits stay.
            (ip(4, 0x8000_0000_0002), Some(0x0a00_8000_0000_0002)),
            (ip(0, 0), None),
            (ip(1, 0xffff), Some(0x0a00_8000_0000_ffff)),
        ];
        for (ip, expected) in steps {
            assert_eq!(last.update(ip), expected, "{ip:?}");
        }
        last.reset();
        assert_eq!(last.update(ip(1, 5)), Some(5));
    }
}
