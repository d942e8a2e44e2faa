//! What a vCPU did between the last two ticks, for the status page. Whoever can take rates has the
//! totals; a page without a memory has not.

use std::time::{Duration, Instant};

/// Growth of a vCPU's totals between two ticks, over all its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTick {
    /// From the end of one tick to the end of the next.
    pub span: Duration,
    /// On a core.
    pub time: Duration,
    /// Runnable, waiting for a core.
    pub delay: Duration,
}

impl LastTick {
    /// Share of the tick on a core, 0 to 1. Threads are read one after the other, so that the
    /// quotient itself may be a little more.
    pub fn time_share(&self) -> f64 {
        self.share(self.time)
    }

    /// Share of the tick spent waiting for a core, 0 to 1.
    pub fn delay_share(&self) -> f64 {
        self.share(self.delay)
    }

    fn share(&self, part: Duration) -> f64 {
        (part.as_secs_f64() / self.span.as_secs_f64()).min(1.0)
    }
}

/// A vCPU's totals of time and delay at the end of a tick, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    pub(super) time: u64,
    pub(super) delay: u64,
}

/// Remembers one vCPU's totals from tick to tick.
#[derive(Debug, Default)]
pub(super) struct Memory(Option<(Instant, Totals)>);

impl Memory {
    /// What happened since the tick before; `None` at the first tick, and where totals are unknown.
    pub(super) fn follow(&mut self, now: Instant, totals: Option<Totals>) -> Option<LastTick> {
        let before = std::mem::replace(&mut self.0, totals.map(|totals| (now, totals)));
        let ((then, before), totals) = before.zip(totals)?;
        let span = now.saturating_duration_since(then);
        let grown = |now: u64, before: u64| Duration::from_nanos(now.saturating_sub(before));
        (!span.is_zero()).then(|| LastTick {
            span,
            time: grown(totals.time, before.time),
            delay: grown(totals.delay, before.delay),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(time: u64, delay: u64) -> Option<Totals> {
        Some(Totals { time, delay })
    }

    #[test]
    fn it_tells_what_was_added_since_the_tick_before() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert_eq!(memory.follow(start, totals(500, 70)), None);
        let later = start + Duration::from_nanos(1000);
        let last = memory.follow(later, totals(750, 170)).unwrap();
        assert_eq!((last.time_share(), last.delay_share()), (0.25, 0.1));
    }

    #[test]
    fn what_is_unknown_or_took_no_time_has_no_share() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let later = start + Duration::from_secs(1);
        memory.follow(start, totals(1, 1));
        assert_eq!(memory.follow(later, None), None);
        assert_eq!(memory.follow(later, totals(2, 2)), None);
        assert_eq!(memory.follow(later, totals(3, 3)), None);
    }

    #[test]
    fn a_share_is_at_most_one() {
        let last = LastTick {
            span: Duration::from_secs(1),
            time: Duration::from_millis(1004),
            delay: Duration::ZERO,
        };
        assert_eq!(last.time_share(), 1.0);
    }
}
