//! Runs all stages on one thread, for a host that changes only between turns.

use std::io;
use std::time::{Duration, Instant};

use super::{Pipeline, Running};
use crate::config::Sampling;
use crate::engine::schedule::Schedule;
use crate::stop::Stop;

/// Most steps of a source in one turn if it is far behind.
const MOST_STEPS: usize = 64;

impl Pipeline {
    /// Like [`Pipeline::start`], with one thread that runs all stages in turn. It calls `before`
    /// with the time since the start before each turn.
    pub(in crate::cli) fn start_in_step(
        mut self,
        periods: &Sampling,
        stop: &Stop,
        mut before: impl FnMut(Duration) + Send + 'static,
        mut after_tick: impl FnMut() + Send + 'static,
    ) -> io::Result<Running> {
        let (tick, inventory) = (periods.tick, periods.inventory);
        let begun = Instant::now();
        before(Duration::ZERO);
        self.find();
        self.read_slow(begun);
        self.tick();
        let mut running = Running::new(stop, self.heartbeats.clone());
        running.spawn("in step", move |stop| {
            let mut schedule = Schedule::new(begun + tick, tick);
            let mut find_at = begun + inventory;
            while !stop.wait_until(schedule.due()) {
                let now = Instant::now();
                before(now - begun);
                if find_at <= now {
                    self.find();
                    find_at = now + inventory;
                }
                self.turn(now, &mut schedule);
                after_tick();
            }
        })?;
        Ok(running)
    }

    /// Reads the slow sources that are due, takes the steps that are due, and ticks.
    fn turn(&mut self, now: Instant, schedule: &mut Schedule) {
        self.slow.pass(now);
        for source in &mut self.threaded {
            for _ in 0..MOST_STEPS {
                let due = source.due();
                source.pass(due.min(now));
                if due > now {
                    break;
                }
            }
        }
        let builder = &mut self.builder;
        self.sampler
            .timed_tick(schedule, |sampler| builder.publish(&sampler.view()));
    }
}
