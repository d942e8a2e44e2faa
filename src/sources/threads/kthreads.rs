//! vhost workers that are kernel threads outside any process, and the threads they serve.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::discover::vhost_of;
use crate::host::roots::Roots;
use crate::host::thread::{comm, is_of_kernel};

/// The known kernel threads.
#[derive(Debug, Default)]
pub(super) struct Kthreads {
    /// The thread that each vhost worker serves; `None` for other kernel threads. PIDs are
    /// allocated cyclically, so a cached PID cannot be reused within one interval.
    known: HashMap<i32, Option<i32>>,
    looked: Option<Instant>,
}

impl Kthreads {
    /// Reads new kernel threads, unless that was done within `every`.
    pub(super) fn refresh(&mut self, roots: &Roots, now: Instant, every: Duration) {
        let recent = |looked| now.saturating_duration_since(looked) < every;
        if self.looked.is_some_and(recent) {
            return;
        }
        self.looked = Some(now);
        let before = std::mem::take(&mut self.known);
        let now = pids(roots).into_iter().map(|pid| {
            let known = before.get(&pid).copied();
            (pid, known.unwrap_or_else(|| works_for(roots, pid)))
        });
        self.known = now.collect();
    }

    /// The workers that serve a thread that `whom` accepts, ascending.
    pub(super) fn serving(&self, whom: impl Fn(i32) -> bool) -> Vec<i32> {
        let vhost = self.known.iter();
        let serving = vhost.filter(|(_, tid)| tid.is_some_and(&whom));
        let mut pids: Vec<i32> = serving.map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// All kernel threads: the children of kthreadd, if the kernel lists children
/// (`CONFIG_PROC_CHILDREN`), else among all processes.
fn pids(roots: &Roots) -> Vec<i32> {
    let children = roots.read_text(&roots.proc.join("2/task/2/children"));
    match children {
        Ok(text) => numbers(text.split_ascii_whitespace()),
        Err(_) => {
            let names = roots.list(&roots.proc).unwrap_or_default();
            numbers(names.iter().map(String::as_str))
        }
    }
}

fn numbers<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<i32> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn works_for(roots: &Roots, pid: i32) -> Option<i32> {
    let stat = roots.read(&roots.proc.join(format!("{pid}/stat"))).ok()?;
    vhost_of(&comm(&stat)?).filter(|_| is_of_kernel(&stat))
}
