//! Counters of the real kernel: opened by perf-event2, read with one read(2) per group.
//!
//! The crate's own group read allocates and looks values up by ID; here each group has a buffer of
//! the exact size of its reads (perf_event_open(2), "Reading results").

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};

use perf_event::events::Raw;
use perf_event::{Builder, Counter, ReadFormat};

use super::counters::{Attr, CounterError, CounterGroup, OpenCounters, Times};
use crate::engine::descriptors::{self, Holder};
use crate::host::pmu::Words;
use crate::sys;

/// Opens counters through perf_event_open(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Perf;

/// Words at the start of a group's read: number of events, time enabled, time running.
const HEADER: usize = 3;

impl OpenCounters for Perf {
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError> {
        let failed = |event| move |error| CounterError { event, error };
        let Some((first, others)) = events.split_first() else {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(CounterError { event: 0, error });
        };
        // The leader starts disabled, so that all members start counting at the same instant.
        let mut leader = builder(tid, first, false).build().map_err(failed(0))?;
        set_filter(&leader, first).map_err(failed(0))?;
        let mut members = Vec::with_capacity(others.len());
        for (n, attr) in others.iter().enumerate() {
            let member = builder(tid, attr, true).build_with_group(&mut leader);
            let member = member.map_err(failed(n + 1))?;
            set_filter(&member, attr).map_err(failed(n + 1))?;
            members.push(sys::into_file(member));
        }
        leader.enable().map_err(failed(0))?;
        let group = PerfGroup::new(leader, members);
        let newest = group.members.last().unwrap_or(&group.leader);
        descriptors::leaves_room(newest, Holder::Counters).map_err(failed(others.len()))?;
        Ok(Box::new(group))
    }
}

/// All attributes of an event.
fn builder(tid: i32, attr: &Attr, enabled: bool) -> Builder<'static> {
    let mut builder = event(tid, attr.kind, attr.words, enabled);
    builder
        .exclude_host(attr.exclude_host)
        .exclude_guest(attr.exclude_guest);
    let format =
        ReadFormat::GROUP | ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING;
    // Set here because the builder's own method would add an ID to each value.
    builder.attrs_mut().read_format = format.bits();
    builder
}

/// An event on a thread, in guest and host mode: never pinned (it would take counters from all
/// others), never inherited (refused for groups; every vCPU thread is opened separately), kernel
/// and hypervisor included (with KVM, excluding the kernel also excludes the guest's kernel).
pub(in crate::sources) fn event(
    tid: i32,
    kind: u32,
    words: Words,
    enabled: bool,
) -> Builder<'static> {
    let mut builder = Builder::new(Raw::new(words[0]));
    builder
        .observe_pid(tid)
        .any_cpu()
        .enabled(enabled)
        .include_kernel()
        .include_hv();
    let attrs = builder.attrs_mut();
    attrs.type_ = kind;
    attrs.config1 = words[1];
    attrs.config2 = words[2];
    attrs.config3 = words[3];
    builder
}

/// An event without a filter counts every hit: the filter must be set before the leader is
/// enabled.
fn set_filter(counter: &Counter, attr: &Attr) -> io::Result<()> {
    let Some(filter) = attr.filter else {
        return Ok(());
    };
    sys::set_event_filter(counter, &CString::new(filter.to_string())?)
}

/// A leader, its members, and a buffer for one read.
struct PerfGroup {
    leader: File,
    members: Vec<File>,
    buffer: Box<[u8]>,
}

impl PerfGroup {
    fn new(leader: Counter, members: Vec<File>) -> Self {
        let words = HEADER + 1 + members.len();
        Self {
            leader: sys::into_file(leader),
            members,
            buffer: vec![0; words * size_of::<u64>()].into(),
        }
    }
}

impl CounterGroup for PerfGroup {
    fn read(&mut self, counts: &mut [u64]) -> io::Result<Times> {
        let read = self.leader.read(&mut self.buffer)?;
        if read != self.buffer.len() {
            // The kernel returns 0 bytes for a group in error state (perf_event_open(2)).
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut words = self.buffer.chunks_exact(size_of::<u64>()).map(|bytes| {
            let mut word = [0; size_of::<u64>()];
            word.copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        });
        let mut next = || words.next().unwrap_or(0);
        let (_events, enabled, running) = (next(), next(), next());
        counts.iter_mut().for_each(|count| *count = next());
        Ok(Times { enabled, running })
    }

    fn descriptors(&self) -> usize {
        1 + self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pmu::counters::{Filter, Test};
    use crate::sources::pmu::events;

    fn software() -> Vec<Attr> {
        events::software()
            .into_iter()
            .map(|(_, attr)| attr)
            .collect()
    }

    /// Faults in fresh memory. malloc maps allocations above 32 MiB separately each time
    /// (mallopt(3), M_MMAP_THRESHOLD); with huge pages there is one fault per 2 MiB.
    fn fault() {
        std::hint::black_box(vec![1u8; 40 << 20]);
    }

    /// Minimum number of faults of [`fault`].
    const FAULTS: u64 = 16;

    /// Opens on the calling thread, if the machine allows it.
    fn open(events: &[Attr]) -> Option<Box<dyn CounterGroup>> {
        match Perf.open(0, events) {
            Ok(group) => Some(group),
            Err(error) => {
                println!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn only_the_given_attributes_are_set() {
        let asked = Attr {
            kind: 4,
            words: [0x1d3, 1, 2, 3],
            exclude_host: true,
            exclude_guest: false,
            filter: None,
        };
        let builder = builder(0, &asked, true);
        let attrs = builder.attrs();
        assert_eq!((attrs.type_, attrs.config), (4, 0x1d3));
        assert_eq!((attrs.config1, attrs.config2, attrs.config3), (1, 2, 3));
        assert_eq!((attrs.exclude_host(), attrs.exclude_guest()), (1, 0));
        let excluded = attrs.exclude_kernel() | attrs.exclude_hv() | attrs.exclude_user();
        assert_eq!(excluded | attrs.exclude_idle(), 0);
        assert_eq!(attrs.pinned() | attrs.inherit() | attrs.exclusive(), 0);
        // GROUP, TOTAL_TIME_ENABLED and TOTAL_TIME_RUNNING of linux/perf_event.h.
        assert_eq!(attrs.read_format, 1 << 3 | 1 << 0 | 1 << 1);
    }

    #[test]
    fn software_events_of_the_own_thread_are_counted() {
        let Some(mut group) = open(&software()) else {
            return;
        };
        let mut before = [0; 3];
        let first = group.read(&mut before).unwrap();
        fault();
        // Sleeping is a context switch.
        std::thread::sleep(std::time::Duration::from_millis(1));
        let mut after = [0; 3];
        let second = group.read(&mut after).unwrap();
        assert!(after[0] > before[0], "context switches: {after:?}");
        assert!(
            after[2] >= before[2] + FAULTS,
            "page faults: {before:?} {after:?}"
        );
        assert!(second.enabled > first.enabled);
        assert_eq!(second.enabled, second.running);
        assert_eq!(group.descriptors(), 3);
    }

    #[test]
    fn exited_thread_keeps_its_last_counts() {
        let (reported, tell) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            reported.0.send(tid).unwrap();
            tell.1.recv().unwrap();
            // More than malloc ever keeps for reuse (DEFAULT_MMAP_THRESHOLD_MAX, mallopt(3)), so
            // the pages are new.
            vec![1u8; 40 << 20].iter().step_by(4096).count()
        });
        let group = Perf.open(reported.1.recv().unwrap(), &software());
        tell.0.send(()).unwrap();
        thread.join().unwrap();
        let mut group = match group {
            Ok(group) => group,
            Err(error) => return println!("skipped: {error}"),
        };
        let (mut counts, mut again) = ([0; 3], [0; 3]);
        let times = group.read(&mut counts).unwrap();
        assert!(counts[2] >= FAULTS, "page faults: {counts:?}");
        assert_eq!(group.read(&mut again).unwrap(), times);
        assert_eq!(again, counts);
    }

    #[test]
    fn exited_thread_is_esrch() {
        if open(&software()).is_none() {
            return;
        }
        let tid = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get());
        let tid = tid.join().unwrap();
        let error = Perf.open(tid, &software()).err().unwrap();
        assert_eq!(error.error.raw_os_error(), Some(libc::ESRCH));
    }

    /// Number of getppid(2), which nothing else in this thread calls.
    const GETPPID: libc::c_long = libc::SYS_getppid;

    #[test]
    fn filter_counts_only_its_hits() {
        let id = std::fs::read_to_string("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id");
        let Ok(id) = id else {
            return println!("skipped: no system call tracepoint: {id:?}");
        };
        let id = id.trim().parse().unwrap();
        let only = |first| {
            events::tracepoint(
                id,
                Some(Filter {
                    first,
                    second: None,
                }),
            )
        };
        let number = u32::try_from(GETPPID).unwrap();
        let attrs = [
            only(Test::Is("id", number)),
            only(Test::IsNot("id", number)),
            events::tracepoint(id, None),
        ];
        let Some(mut group) = open(&attrs) else {
            return;
        };
        let (mut before, mut after) = ([0; 3], [0; 3]);
        group.read(&mut before).unwrap();
        for _ in 0..100 {
            let _parent = rustix::process::getppid();
        }
        group.read(&mut after).unwrap();
        let new: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        // The read itself is a system call too.
        assert_eq!(new[..2], [100, 1], "{before:?} {after:?}");
        assert_eq!(new[2], 101);
    }

    #[test]
    fn invalid_filter_is_refused() {
        let id = std::fs::read_to_string("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id");
        let Ok(id) = id else {
            return println!("skipped: no system call tracepoint: {id:?}");
        };
        let plain = events::tracepoint(id.trim().parse().unwrap(), None);
        if open(&[plain]).is_none() {
            return;
        }
        let filter = Some(Filter {
            first: Test::Is("no_such_field", 1),
            second: None,
        });
        let error = Perf
            .open(0, &[plain, Attr { filter, ..plain }])
            .err()
            .unwrap();
        assert_eq!(
            (error.event, error.error.raw_os_error()),
            (1, Some(libc::EINVAL))
        );
    }

    #[test]
    fn refused_event_is_named() {
        let mut events = software();
        if open(&events).is_none() {
            return;
        }
        events[1].words[0] = 0xffff;
        let error = Perf.open(0, &events).err().unwrap();
        assert_eq!(error.event, 1);
    }
}
