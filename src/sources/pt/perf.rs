//! Records through the kernel: one event, two mappings, one sleep.

use std::io;
use std::time::{Duration, Instant};

use perf_event::{Builder, Counter, ReadFormat};

use super::ring_view::PerfRingView;
use super::{Capture, RecordError, RecordPt, Request, Step};
use crate::sources::pmu::perf::event;
use crate::sys::{self, perf_ring::PerfRing};

/// Pages of the record ring. An AUX record has 32 bytes, and there is one for each time the thread
/// is scheduled in: 64 KiB hold 2,000, or 200 per millisecond in the default window.
const RECORD_PAGES: usize = 16;

/// Records through perf_event_open(2).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PerfPt;

impl RecordPt for PerfPt {
    fn record(&self, tid: i32, request: &Request) -> Result<Capture, RecordError> {
        let failed = |step| move |error| RecordError { step, error };
        let mut event = builder(tid, request).build().map_err(failed(Step::Open))?;
        let fd = sys::borrow(&event);
        let mut ring = PerfRing::map(fd, RECORD_PAGES).map_err(failed(Step::MapRecords))?;
        let mapped = ring.map_aux(fd, request.max_bytes);
        mapped.map_err(failed(Step::MapTrace))?;
        let elapsed = run(&mut event, request.window).map_err(failed(Step::Run))?;
        let times = event.read_count_and_time().map_err(failed(Step::Run))?;
        let image = PerfRingView {
            page: ring.page(),
            data: ring.data(),
            aux: ring.aux(),
        };
        Ok(Capture {
            trace: image.drain(),
            elapsed,
            on_cpu: Duration::from_nanos(times.time_enabled),
            traced: Duration::from_nanos(times.time_running),
        })
    }
}

/// All attributes of the event; for those that exclude nothing, see the module `pt`.
fn builder(tid: i32, request: &Request) -> Builder<'static> {
    let mut builder = event(tid, request.kind, request.words, false);
    builder.read_format(ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING);
    builder
}

/// Runs the event for the window; returns how long it ran. When disable returns, the traced CPU
/// has written its last record (`event_function_call`, kernel/events/core.c).
fn run(event: &mut Counter, window: Duration) -> io::Result<Duration> {
    let begun = Instant::now();
    event.enable()?;
    std::thread::sleep(window);
    event.disable()?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pt::ring_view::{AUX_HEAD, DATA_HEAD};
    use perf_event::events::Software;
    use std::sync::atomic::Ordering;

    fn request(kind: u32) -> Request {
        Request {
            kind,
            words: [0x8000_2c03, 1, 2, 3],
            window: Duration::from_millis(1),
            max_bytes: 1 << 20,
        }
    }

    #[test]
    fn only_the_given_attributes_are_set_and_nothing_is_excluded() {
        let builder = builder(0, &request(8));
        let attrs = builder.attrs();
        assert_eq!((attrs.type_, attrs.config), (8, 0x8000_2c03));
        assert_eq!((attrs.config1, attrs.config2, attrs.config3), (1, 2, 3));
        let excluded = attrs.exclude_kernel() | attrs.exclude_hv() | attrs.exclude_user();
        let by_side = attrs.exclude_host() | attrs.exclude_guest() | attrs.exclude_idle();
        assert_eq!(excluded | by_side, 0);
        assert_eq!(attrs.pinned() | attrs.inherit() | attrs.exclusive(), 0);
        assert_eq!(attrs.disabled(), 1);
        // TOTAL_TIME_ENABLED and TOTAL_TIME_RUNNING of linux/perf_event.h.
        assert_eq!(attrs.read_format, 1 | 2);
    }

    #[test]
    fn missing_pmu_is_refused_at_open() {
        let error = PerfPt.record(0, &request(0x7fff_0000)).unwrap_err();
        assert_eq!(error.step, Step::Open, "{error}");
    }

    /// The kernel's own rings, of an event with records and without an AUX area: this kernel writes
    /// to the fixed offsets that are read here.
    #[test]
    fn kernel_writes_records_at_the_expected_offsets() {
        let mut builder = Builder::new(Software::DUMMY);
        builder
            .observe_self()
            .any_cpu()
            .enabled(false)
            .include_kernel();
        // A PERF_RECORD_COMM each time the thread's name changes.
        builder.attrs_mut().set_comm(1);
        let mut event = match builder.build() {
            Ok(event) => event,
            Err(error) => return println!("skipped: {error}"),
        };
        let fd = sys::borrow(&event);
        let mut ring = PerfRing::map(fd, 1).unwrap();
        let size = rustix::param::page_size();
        // data_offset and data_size, at 1040 and 1048, are the sizes of the mapping.
        let reported = [1040 / 8, 1048 / 8].map(|n| ring.page()[n].load(Ordering::Relaxed));
        assert_eq!(reported, [size as u64; 2]);
        assert_eq!(ring.data().len(), size / 8);
        event.enable().unwrap();
        rustix::thread::set_name(c"recorded").unwrap();
        event.disable().unwrap();
        assert_ne!(ring.page()[DATA_HEAD].load(Ordering::Acquire), 0);
        let image = PerfRingView {
            page: ring.page(),
            data: ring.data(),
            aux: &[],
        };
        let drained = image.drain();
        assert!(!drained.damaged && !drained.lost, "{drained:?}");
        assert_eq!(drained, image.drain(), "nothing new");
        // aux_head, next to aux_tail: a software event has no AUX area to map.
        assert_eq!(ring.page()[AUX_HEAD].load(Ordering::Relaxed), 0);
        assert!(ring.map_aux(sys::borrow(&event), size).is_err());
        assert!(ring.aux().is_empty());
    }
}
