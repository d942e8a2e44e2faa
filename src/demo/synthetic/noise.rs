//! Noise as a pure function of seed, key and time.

use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    seed: u64,
}

/// A quantity: what it is, and of which object.
pub(super) type Key = (u64, u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A value from 0 to 1, different for each `n`.
    pub(super) fn unit(self, (what, whose): Key, n: u64) -> f64 {
        let mixed = mix(mix(mix(self.seed ^ what) ^ whose) ^ n);
        // 53 bits, the precision of a float.
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A value from -1 to 1, smooth in time: a new value each `period`, interpolated between.
    pub(super) fn slow(self, key: Key, at: Duration, period: Duration) -> f64 {
        let x = at.as_secs_f64() / period.as_secs_f64() + self.unit(key, u64::MAX);
        let (n, part) = (x.floor() as u64, x.fract());
        let (a, b) = (self.unit(key, n), self.unit(key, n + 1));
        let smooth = part * part * (3.0 - 2.0 * part);
        2.0 * (a + (b - a) * smooth) - 1.0
    }
}

/// One step of splitmix64 (public domain, Sebastiano Vigna, prng.di.unimi.it/splitmix64.c).
pub(super) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_splitmix64() {
        // From the reference implementation, with seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn noise_is_bounded_varies_and_is_repeatable() {
        let noise = Noise::new(7);
        let at = |s| noise.slow((1, 2), Duration::from_secs(s), Duration::from_secs(60));
        let all: Vec<f64> = (0..6000).map(at).collect();
        assert!(all.iter().all(|x| (-1.0..=1.0).contains(x)));
        assert!(all.iter().any(|x| *x > 0.5) && all.iter().any(|x| *x < -0.5));
        assert!(
            all.windows(2).all(|w| (w[0] - w[1]).abs() < 0.1),
            "it is smooth"
        );
        assert_eq!(at(17).to_bits(), at(17).to_bits());
        assert_ne!(
            at(17),
            Noise::new(8).slow((1, 2), Duration::from_secs(17), Duration::from_secs(60))
        );
    }
}
