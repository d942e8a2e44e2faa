//! Recorded time of each core, and when it may be recorded again.
//!
//! Recording slows its core by a few percent, mostly by memory bandwidth. So the time is bounded
//! for each core over a sliding span: with the default of 1 % of a minute, no minute of any core
//! contains more than 600 ms of recording. The two threads of a core count as one.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A core: package ID and core ID, as in [`crate::host::topology::Place`].
pub(crate) type Core = (i32, i32);

/// Recordings within the last span, by core.
#[derive(Debug)]
pub(crate) struct DutyCycle {
    span: Duration,
    most: Duration,
    window: Duration,
    cores: HashMap<Core, VecDeque<Recorded>>,
}

/// End and length of a recording.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    end: Instant,
    length: Duration,
}

impl DutyCycle {
    /// At most `part` of each core's time is recorded, in windows of length `window`, over any span
    /// of `period`; or over the time of which one window is `part`, if that is longer.
    pub(crate) fn new(part: f64, window: Duration, period: Duration) -> Self {
        let span = period.max(window.div_f64(part));
        Self {
            span,
            // Rounding must not exclude the one window that always fits.
            most: span.mul_f64(part).max(window),
            window,
            cores: HashMap::new(),
        }
    }

    /// The earliest time, from `now` on, at which one more window fits on this core.
    pub(crate) fn free_at(&mut self, core: Core, now: Instant) -> Instant {
        let Some(recorded) = self.cores.get_mut(&core) else {
            return now;
        };
        // The relevant span ends when a window that starts now ends.
        let until = now + self.window;
        while recorded.front().is_some_and(|r| r.end + self.span <= until) {
            recorded.pop_front();
        }
        let mut left = recorded.iter().map(|r| r.length).sum::<Duration>() + self.window;
        let mut free = now;
        for r in recorded.iter() {
            if left <= self.most {
                break;
            }
            left -= r.length;
            free = r.end + self.span - self.window;
        }
        free
    }

    /// Adds a recording that started at `begun` on this core.
    pub(crate) fn charge(&mut self, core: Core, begun: Instant, length: Duration) {
        let end = begun + length;
        self.cores
            .entry(core)
            .or_default()
            .push_back(Recorded { end, length });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);
    const CORE: Core = (0, 3);

    #[test]
    fn core_at_its_limit_waits_alone() {
        let mut duty = DutyCycle::new(0.01, 10 * MS, 2 * S);
        let start = Instant::now();
        assert_eq!(duty.free_at(CORE, start), start);
        duty.charge(CORE, start, 10 * MS);
        let next = start + 10 * MS;
        assert_eq!(duty.free_at(CORE, next), next);
        duty.charge(CORE, next, 10 * MS);
        // 20 ms of 2 s have passed: the first recording must leave the span that ends with the next
        // window.
        let free = duty.free_at(CORE, start + 20 * MS);
        assert_eq!(free, start + 2 * S);
        assert_eq!(duty.free_at(CORE, free), free);
        assert_eq!(duty.free_at((1, 3), next), next);
    }

    #[test]
    fn long_window_extends_the_span() {
        let mut duty = DutyCycle::new(0.01, S, 10 * S);
        let start = Instant::now();
        assert_eq!(duty.free_at(CORE, start), start);
        duty.charge(CORE, start, S);
        assert_eq!(duty.free_at(CORE, start + S), start + 100 * S);
    }

    #[test]
    fn late_recording_delays_the_next() {
        let mut duty = DutyCycle::new(0.01, 10 * MS, S);
        let start = Instant::now();
        duty.charge(CORE, start, 300 * MS);
        let free = duty.free_at(CORE, start + S);
        assert_eq!(free, start + 300 * MS + S - 10 * MS);
    }

    proptest! {
        /// Recordings as early as allowed, each at most a window long: no span contains more than
        /// its part.
        #[test]
        fn no_span_has_more_than_its_part(
            lengths in prop::collection::vec((1u32..=10, 0u32..400), 1..60),
            percent in 1u32..20,
        ) {
            let part = f64::from(percent) / 100.0;
            let mut duty = DutyCycle::new(part, 10 * MS, S);
            let start = Instant::now();
            let mut now = start;
            let mut all = Vec::new();
            for (length, pause) in lengths {
                now = duty.free_at(CORE, now + pause * MS);
                let length = length * MS;
                duty.charge(CORE, now, length);
                all.push((now, now + length));
                now += length;
            }
            let most = S.mul_f64(part) + Duration::from_nanos(10);
            for (_, end) in &all {
                let from = *end - S;
                let within = all.iter().map(|(a, b)| b.min(end).saturating_duration_since(*a.max(&from)));
                prop_assert!(within.sum::<Duration>() <= most);
            }
        }
    }
}
