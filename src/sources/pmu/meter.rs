//! Computes deltas between reads of a counter group.
//!
//! A group that shares its counters with others counts only part of the time; its deltas are
//! scaled to the whole. The scale is that of the interval since the last charge, never of the
//! counter's whole life: a busy hour in which the group got no counters must not distort a quiet
//! one.
//!
//! On a machine with several types of core there is a kernel group for each. All are enabled while
//! the thread runs, but each counts only on its own type, so their running times add up to the
//! enabled time: counts and running times are summed before scaling.

use super::counters::Times;

/// Maximum count per ns of running time: 128 increments per cycle at 8 GHz. Six-wide cores count
/// about 40 slots per ns.
const MAX_RATE: u64 = 1024;

/// Tolerance beyond [`MAX_RATE`]: time and count are not read at the same instant.
const SLACK: u64 = 1 << 20;

/// Counters of current x86 cores have 48 bits. The kernel widens them to 64; if a kernel or
/// hypervisor fails to do so, the counter wraps at 48 bits.
const NARROW: u64 = (1 << 48) - 1;

/// The last read of a group, and counts not yet charged.
#[derive(Debug)]
pub(crate) struct Meter {
    parts: Box<[Part]>,
    pending: Box<[Pending]>,
    enabled: u64,
    running: u64,
    scaled: bool,
}

/// The last read of the group on one type of core.
#[derive(Debug)]
struct Part {
    times: Times,
    counts: Box<[u64]>,
}

/// Counts of one event that are not yet charged.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    count: u64,
    /// Remainder of scaling, in 2^-32 of an event; carried over so that no event is lost.
    carry: u64,
    /// A read was implausible: nothing is charged for this interval.
    broken: bool,
}

impl Meter {
    /// A meter for `events` events on `parts` types of core. It starts at 0, as counters do when
    /// opened. Without `scaled`, counts are charged unscaled.
    pub(crate) fn new(parts: usize, events: usize, scaled: bool) -> Self {
        let part = || Part {
            times: Times::default(),
            counts: vec![0; events].into(),
        };
        Self {
            parts: (0..parts).map(|_| part()).collect(),
            pending: vec![Pending::default(); events].into(),
            enabled: 0,
            running: 0,
            scaled,
        }
    }

    /// Takes the reads of all parts; returns how long the group was enabled and running since the
    /// last call.
    pub(crate) fn take<'a>(&mut self, readings: impl Iterator<Item = (Times, &'a [u64])>) -> Times {
        let mut since = Times::default();
        for (part, (times, counts)) in self.parts.iter_mut().zip(readings) {
            let Some(delta) = part.advance(times) else {
                part.counts.copy_from_slice(counts);
                continue;
            };
            since.enabled = since.enabled.max(delta.enabled);
            since.running = since.running.saturating_add(delta.running);
            let events = part.counts.iter_mut().zip(counts).zip(&mut self.pending);
            for ((before, now), pending) in events {
                pending.add(count_delta(*before, *now, delta.running));
                *before = *now;
            }
        }
        // Two clocks that are read one after the other may differ slightly.
        since.running = since.running.min(since.enabled);
        self.enabled = self.enabled.saturating_add(since.enabled);
        self.running = self.running.saturating_add(since.running);
        since
    }

    /// Charges pending counts: calls `charge` with each event's index and delta. If the group has
    /// not run since the last charge, the deltas are unknown and nothing is charged.
    pub(crate) fn charge(&mut self, mut charge: impl FnMut(usize, u64)) {
        if self.running == 0 {
            return;
        }
        for (event, pending) in self.pending.iter_mut().enumerate() {
            let broken = std::mem::take(&mut pending.broken);
            let count = std::mem::take(&mut pending.count);
            match (broken, self.scaled) {
                (true, _) => {}
                (false, true) => charge(event, pending.scale(count, self.enabled, self.running)),
                (false, false) => charge(event, count),
            }
        }
        self.enabled = 0;
        self.running = 0;
    }
}

impl Part {
    /// The times since the last read; `None` if they went backwards.
    fn advance(&mut self, now: Times) -> Option<Times> {
        let before = std::mem::replace(&mut self.times, now);
        Some(Times {
            enabled: now.enabled.checked_sub(before.enabled)?,
            running: now.running.checked_sub(before.running)?,
        })
    }
}

impl Pending {
    fn add(&mut self, delta: Option<u64>) {
        match delta {
            Some(delta) => self.count = self.count.saturating_add(delta),
            None => self.broken = true,
        }
    }

    /// `count * enabled / running`; the fraction is carried over.
    fn scale(&mut self, count: u64, enabled: u64, running: u64) -> u64 {
        if enabled <= running {
            return count;
        }
        let product = u128::from(count) * u128::from(enabled);
        let running = u128::from(running);
        // The fraction is below 1, so it fits into 32 bits after the shift.
        let fraction = ((product % running) << 32) / running;
        self.carry += fraction as u64;
        let whole = product / running + u128::from(self.carry >> 32);
        self.carry &= u64::from(u32::MAX);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }
}

/// Delta of a counter, at most what it can count in `running` ns; `None` if the read is
/// implausible.
fn count_delta(before: u64, now: u64, running: u64) -> Option<u64> {
    let most = running.saturating_mul(MAX_RATE).saturating_add(SLACK);
    let delta = now.wrapping_sub(before);
    [delta, delta & NARROW].into_iter().find(|d| *d <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times(enabled: u64, running: u64) -> Times {
        Times { enabled, running }
    }

    /// Takes one read of one event and returns what was charged.
    fn step(meter: &mut Meter, enabled: u64, running: u64, count: u64) -> Option<u64> {
        meter.take([(times(enabled, running), &[count][..])].into_iter());
        let mut charged = None;
        meter.charge(|_, delta| charged = Some(delta));
        charged
    }

    #[test]
    fn group_that_always_ran_is_charged_unscaled() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 1000, 70), Some(70));
        assert_eq!(step(&mut meter, 2000, 2000, 100), Some(30));
    }

    #[test]
    fn the_scale_is_that_of_the_interval() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 250, 100), Some(400));
        // Over its life it ran 5/8 of the time, in this interval all of it.
        assert_eq!(step(&mut meter, 2000, 1250, 200), Some(100));
    }

    #[test]
    fn interval_without_running_is_charged_with_the_next() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 0, 0), None);
        assert_eq!(step(&mut meter, 2000, 500, 10), Some(40));
        assert_eq!(step(&mut meter, 3000, 1500, 20), Some(10));
    }

    #[test]
    fn no_new_time_is_unknown() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 1000, 70), Some(70));
        assert_eq!(step(&mut meter, 1000, 1000, 70), None);
    }

    #[test]
    fn fractions_are_carried() {
        let mut meter = Meter::new(1, 1, true);
        let total: u64 = (1..=300)
            .filter_map(|n| step(&mut meter, n * 400, n * 300, n))
            .sum();
        // 4/3 of 300; the fraction that is kept has 32 bits and is rounded down.
        assert!((399..=400).contains(&total), "{total}");
    }

    #[test]
    fn wrapped_counter_continues() {
        let mut meter = Meter::new(1, 1, true);
        meter.parts[0].counts[0] = u64::MAX - 9;
        assert_eq!(step(&mut meter, 1000, 1000, 10), Some(20));
        meter.parts[0].counts[0] = NARROW - 9;
        assert_eq!(step(&mut meter, 2000, 2000, 10), Some(20));
    }

    #[test]
    fn implausible_count_is_skipped_once() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 1000, 1 << 40), None);
        assert_eq!(step(&mut meter, 2000, 2000, (1 << 40) + 5), Some(5));
    }

    #[test]
    fn times_that_go_backwards_charge_nothing() {
        let mut meter = Meter::new(1, 1, true);
        assert_eq!(step(&mut meter, 1000, 1000, 100), Some(100));
        assert_eq!(step(&mut meter, 500, 500, 50), None);
        assert_eq!(step(&mut meter, 600, 600, 55), Some(5));
    }

    #[test]
    fn types_of_core_add_up() {
        let mut meter = Meter::new(2, 1, true);
        // 600 of 1000 ns on one type, 400 on the other: nothing is missing.
        let readings = [(times(1000, 600), &[60][..]), (times(1000, 400), &[40][..])];
        assert_eq!(meter.take(readings.into_iter()), times(1000, 1000));
        let mut charged = 0;
        meter.charge(|_, delta| charged += delta);
        assert_eq!(charged, 100);
    }

    proptest! {
        #[test]
        fn steady_counters_are_scaled_correctly(
            steps in prop::collection::vec((1u64..2_000_000_000, 1u64..100), 1..50),
        ) {
            // One event per ns, running `share` percent of each step.
            let mut meter = Meter::new(1, 1, true);
            let (mut enabled, mut running, mut total) = (0, 0, 0);
            for (span, share) in &steps {
                enabled += span;
                running += span * share / 100;
                total += step(&mut meter, enabled, running, running).unwrap_or(0);
            }
            prop_assert!(total <= enabled);
            prop_assert!(total + meter.enabled + 1 >= enabled);
        }

        #[test]
        fn any_reads_are_accepted(
            readings in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..20),
            scaled: bool,
        ) {
            let mut meter = Meter::new(1, 1, scaled);
            for (enabled, running, count) in readings {
                step(&mut meter, enabled, running, count);
            }
        }
    }
}
