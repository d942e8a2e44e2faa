//! Whether the counters of guests count guests at all.
//!
//! On some hosts events that count the guest alone are opened, run, and stay 0 whatever the guest
//! does: where KVM runs guests without the processor's own guest mode (PVM), in a hypervisor that
//! does not pass the mode on, or where guests got the counters after the events were opened. 0
//! would then read as a guest that does nothing. So what guest events say of a vCPU is taken for
//! known from the first one that counted, and no longer when none counts while the guest runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::sample::Reason;

/// So long the guest ran, by the thread's own account, without a single guest cycle (ns). The
/// kernel finds at its timer ticks that a thread is in its guest, so that the account has steps of
/// 10 ms and can be several times what the guest had; but it never grows without any cycle of the
/// guest's, and here that would have happened 500 times in a row.
const GUEST_TIME: u64 = 5_000_000_000;

/// … and so many readings it took.
const READINGS: u32 = 5;

/// A reading proves something only where the events had a counter for at least one part of so many
/// of the time: else the guest may have run in the rest.
const LEAST_SHARE: u64 = 4;

/// vCPUs whose guests are not counted, among those that are watched.
#[derive(Debug, Default)]
pub(super) struct Silent {
    watched: AtomicUsize,
    silent: AtomicUsize,
}

impl Silent {
    /// Why the source is degraded; `None` while no guest is known to be left out.
    pub(super) fn reason(&self) -> Option<Reason> {
        let silent = self.silent.load(Ordering::Relaxed);
        (silent > 0).then(|| Reason {
            code: "guest_not_counted",
            detail: format!(
                "guests of {silent} of {} vCPUs run, and the counters of guest mode stay 0: they are \
                 left out, and those of host mode may hold the guest too",
                self.watched.load(Ordering::Relaxed)
            ),
            fix: None,
        })
    }
}

/// One reading of a vCPU's guest events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// Guest cycles, as far as they are known.
    pub(super) cycles: Option<u64>,
    /// Sum of what all guest events counted, cycles among them.
    pub(super) all: u64,
    /// How long the group with guest cycles was enabled and running, ns.
    pub(super) enabled: u64,
    pub(super) running: u64,
    /// How long the guest ran by the thread's account, ns.
    pub(super) guest_time: Option<u64>,
}

/// What guest columns of a vCPU are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// Unknown: nothing was counted yet.
    Unseen,
    /// Known, also where they are 0.
    Counted,
    /// Withdrawn.
    Silent,
}

/// What one vCPU's readings have shown so far.
#[derive(Debug)]
pub(super) struct Evidence {
    guest: Guest,
    /// The thread's guest time of the first reading may be from before the counters were opened.
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

    /// Takes a reading and says what guest columns are now.
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
    fn five_seconds_of_a_guest_without_a_cycle_are_proof() {
        let dead = all([reading(0, SECOND); 7]);
        // The first reading's time may be from before.
        assert_eq!(dead[..5], [Guest::Unseen; 5]);
        assert_eq!(dead[5..], [Guest::Silent; 2]);
        let often = all([reading(0, SECOND / 10); 60]);
        assert_eq!((often[49], often[50]), (Guest::Unseen, Guest::Silent));
    }

    #[test]
    fn one_long_reading_is_no_proof() {
        let seen = all([reading(0, 100 * SECOND); 5]);
        assert_eq!(seen, [Guest::Unseen; 5]);
    }

    #[test]
    fn what_proves_nothing_never_withdraws() {
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
    fn a_single_cycle_begins_it_anew() {
        let mostly = (0..60).map(|n| reading(u64::from(n % 5 == 4), SECOND));
        assert!(!all(mostly).contains(&Guest::Silent));
        // An event other than cycles shows that guests are counted, too.
        let other = Counted {
            all: 1,
            ..reading(0, SECOND)
        };
        assert_eq!(all([other; 20]), [Guest::Counted; 20]);
    }

    #[test]
    fn counts_that_come_back_are_taken_and_the_reason_goes() {
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
        assert_eq!(silent.reason(), None, "a vCPU that is gone is no reason");
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
