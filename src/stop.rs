//! Stops the exporter's threads and wakes those that wait for their next turn.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A stop request shared by all threads; a clone shares the same request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Requests the stop. It cannot be canceled.
    pub(crate) fn stop(&self) {
        let (stopped, wake) = &*self.0;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.notify_all();
    }

    /// Sleeps until `due` or until the stop is requested; returns whether it was requested.
    pub(crate) fn wait_until(&self, due: Instant) -> bool {
        let (stopped, wake) = &*self.0;
        let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if *guard || left.is_zero() {
                return *guard;
            }
            guard = wake
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_due_time_ends_the_wait() {
        assert!(!Stop::default().wait_until(Instant::now() + Duration::from_millis(1)));
    }

    #[test]
    fn stop_wakes_waiting_threads() {
        let stop = Stop::default();
        let waiter = stop.clone();
        let far = Instant::now() + Duration::from_secs(3600);
        let thread = std::thread::spawn(move || waiter.wait_until(far));
        stop.stop();
        assert!(thread.join().unwrap());
        assert!(stop.wait_until(Instant::now()));
    }
}
