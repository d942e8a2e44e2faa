//! Detects guest-mode counters that do not count at all.
//!
//! On some hosts, events that count only guest mode open and run, but stay 0: if KVM runs guests
//! without the processor's guest mode (PVM), in a hypervisor that does not pass the mode on, or if
//! guests got the counters after the events were opened. A 0 would then look like an idle guest.
//! So the guest-mode columns of a vCPU are known from its first count on, and are withdrawn if no
//! event counts while the guest runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::engine::{Reason, ReasonCode};

/// Guest time of the thread, in ns, that must pass without a single guest cycle. The kernel
/// accounts guest time at its timer ticks, in steps of 10 ms, so it may be several times the real
/// guest time. But a step needs at least some guest execution, and here 500 steps in a row would
/// have had none.
const GUEST_TIME: u64 = 5_000_000_000;

/// Number of reads without a guest cycle that are needed as well.
const READINGS: u32 = 5;

/// A read counts as proof only if the events had a counter for at least this fraction (1/n) of the
/// enabled time: otherwise the guest may have run in the rest.
const LEAST_SHARE: u64 = 4;

/// Number of watched vCPUs, and of those whose guests are not counted.
#[derive(Debug, Default)]
pub(super) struct Silent {
    watched: AtomicUsize,
    silent: AtomicUsize,
}

impl Silent {
    /// Why the source is degraded; `None` while no such guest is known.
    pub(super) fn reason(&self) -> Option<Reason> {
        let silent = self.silent.load(Ordering::Relaxed);
        (silent > 0).then(|| ReasonCode::GuestNotCounted.reason(format!(
                "guest-mode counters stay 0 on {silent} of {} vCPUs although their guests run: these \
                 series are omitted, and host-mode counters may include the guest",
                self.watched.load(Ordering::Relaxed)
            )))
    }
}

/// One read of a vCPU's guest-mode events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Guest cycles, if known.
    pub(super) cycles: Option<u64>,
    /// Sum of the counts of all guest-mode events, cycles included.
    pub(super) all: u64,
    /// How long the group with guest cycles was enabled, and (below) counting, in ns.
    pub(super) enabled: u64,
    pub(super) running: u64,
    /// Guest time of the thread as accounted by the kernel, ns.
    pub(super) guest_time: Option<u64>,
}

/// State of the guest-mode columns of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// Unknown: nothing has counted yet.
    Unseen,
    /// Known, also if 0.
    Counted,
    /// Withdrawn: nothing counts although the guest runs.
    Silent,
}

/// What the reads of one vCPU have shown so far.
#[derive(Debug)]
pub(super) struct Evidence {
    guest: Guest,
    /// The guest time of the first read may predate the opening of the counters.
    first: bool,
    silence: u64,
    readings: u32,
    all: Arc<Silent>,
}

impl Evidence {
    pub(super) fn new(all: Arc<Silent>) -> Self {
        all.watched.fetch_add(1, Ordering::Relaxed);
        Self {
            guest: Guest::Unseen,
            first: true,
            silence: 0,
            readings: 0,
            all,
        }
    }

    /// Evaluates a read and returns the new state of the guest-mode columns.
    pub(super) fn take(&mut self, counted: Counted) -> Guest {
        let first = std::mem::replace(&mut self.first, false);
        if counted.all > 0 {
            (self.silence, self.readings) = (0, 0);
            self.become_now(Guest::Counted);
        } else if counted.proves_something() && !first {
            self.silence = self.silence.saturating_add(counted.guest_time.unwrap_or(0));
            self.readings = self.readings.saturating_add(1);
            if self.silence >= GUEST_TIME && self.readings >= READINGS {
                self.become_now(Guest::Silent);
            }
        }
        self.guest
    }

    fn become_now(&mut self, guest: Guest) {
        let before = std::mem::replace(&mut self.guest, guest);
        match (before == Guest::Silent, guest == Guest::Silent) {
            (false, true) => self.all.silent.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.all.silent.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

impl Counted {
    fn proves_something(&self) -> bool {
        let ran = self.running > 0 && self.running.saturating_mul(LEAST_SHARE) >= self.enabled;
        self.cycles == Some(0) && ran && self.guest_time.is_some_and(|time| time > 0)
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        self.become_now(Guest::Unseen);
        self.all.watched.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn reading(cycles: u64, guest_time: u64) -> Counted {
        Counted {
            cycles: Some(cycles),
            all: cycles,
            enabled: SECOND,
            running: SECOND,
            guest_time: Some(guest_time),
        }
    }

    fn all(readings: impl IntoIterator<Item = Counted>) -> Vec<Guest> {
        let mut evidence = Evidence::new(Arc::default());
        readings.into_iter().map(|r| evidence.take(r)).collect()
    }

    #[test]
    fn five_seconds_of_guest_time_without_a_cycle_withdraw() {
        let dead = all([reading(0, SECOND); 7]);
        // The guest time of the first read may be older.
        assert_eq!(dead[..5], [Guest::Unseen; 5]);
        assert_eq!(dead[5..], [Guest::Silent; 2]);
        let often = all([reading(0, SECOND / 10); 60]);
        assert_eq!((often[49], often[50]), (Guest::Unseen, Guest::Silent));
    }

    #[test]
    fn one_long_read_does_not_withdraw() {
        let seen = all([reading(0, 100 * SECOND); 5]);
        assert_eq!(seen, [Guest::Unseen; 5]);
    }

    #[test]
    fn inconclusive_reads_never_withdraw() {
        let starved = Counted {
            running: SECOND / 5,
            ..reading(0, SECOND)
        };
        let halted = reading(0, 0);
        let no_guest_time = Counted {
            guest_time: None,
            ..halted
        };
        let unreadable = Counted {
            cycles: None,
            ..reading(0, SECOND)
        };
        for useless in [starved, halted, no_guest_time, unreadable] {
            assert_eq!(all([useless; 50]), [Guest::Unseen; 50], "{useless:?}");
        }
    }

    #[test]
    fn single_cycle_restarts_the_detection() {
        let mostly = (0..60).map(|n| reading(u64::from(n % 5 == 4), SECOND));
        assert!(!all(mostly).contains(&Guest::Silent));
        // A count of any other event also shows that guests are counted.
        let other = Counted {
            all: 1,
            ..reading(0, SECOND)
        };
        assert_eq!(all([other; 20]), [Guest::Counted; 20]);
    }

    #[test]
    fn returning_counts_clear_the_reason() {
        let silent = Arc::new(Silent::default());
        let mut evidence = Evidence::new(silent.clone());
        let other = Evidence::new(silent.clone());
        assert_eq!(evidence.take(reading(9, SECOND)), Guest::Counted);
        for _ in 0..READINGS {
            assert_eq!(silent.reason(), None);
            evidence.take(reading(0, SECOND));
        }
        let reason = silent.reason().unwrap();
        assert_eq!(reason.code, "guest_not_counted");
        assert!(reason.detail.contains("1 of 2 vCPUs"), "{reason:?}");
        assert_eq!(evidence.take(reading(1, SECOND)), Guest::Counted);
        assert_eq!(silent.reason(), None);
        for _ in 0..READINGS {
            evidence.take(reading(0, SECOND));
        }
        drop(evidence);
        assert_eq!(silent.reason(), None, "a vCPU that ended is not counted");
        drop(other);
        assert_eq!(silent.watched.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn a_guest_that_counts_now_and_then_is_never_withdrawn(
            readings in prop::collection::vec((0u64..=1, 0u64..2 * SECOND), 0..200),
        ) {
            let mut evidence = Evidence::new(Arc::default());
            let mut quiet = 0;
            for (cycles, time) in readings {
                quiet = if cycles > 0 { 0 } else { quiet + time };
                let guest = evidence.take(reading(cycles, time));
                prop_assert!(guest != Guest::Silent || quiet >= GUEST_TIME);
            }
        }
    }
}
