//! vhost workers that are threads of no process: which they are, and for whom they work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::discover::vhost_of;
use crate::host::roots::Roots;
use crate::host::thread::{comm, is_of_kernel};

/// What is known of the kernel's own threads.
#[derive(Debug, Default)]
pub(super) struct Kthreads {
    /// The thread each works for, for those that are vhost workers. Numbers go round through all
    /// others before one is given again, so that none is another thread's from look to look.
    known: HashMap<i32, Option<i32>>,
    looked: Option<Instant>,
}

impl Kthreads {
    /// Looks for new ones, unless that was done within `every`.
    pub(super) fn look(&mut self, roots: &Roots, now: Instant, every: Duration) {
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

    /// Those that work for such a thread, ascending.
    pub(super) fn serving(&self, whom: impl Fn(i32) -> bool) -> Vec<i32> {
        let vhost = self.known.iter();
        let serving = vhost.filter(|(_, tid)| tid.is_some_and(&whom));
        let mut pids: Vec<i32> = serving.map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// All threads of the kernel: the children of kthreadd, where the kernel lists children
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
