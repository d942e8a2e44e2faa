use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::ExitReason;
use crate::engine::fixture::vm;
use crate::fake_host::FakeHost;
use crate::sources::pmu::scripted::{Scripted, Step};

const TID: i32 = 4711;

/// A source on a fixture host with one VM.
struct Rig {
    host: FakeHost,
    counters: Arc<Scripted>,
    columns: Columns,
    exits: Exits,
}

impl Rig {
    fn on(host: FakeHost, reasons: &[&str], counters: Scripted) -> Self {
        let counters = Arc::new(counters);
        let mut columns = Columns::default();
        let reasons = reasons.iter().map(|name| ExitReason((*name).to_owned()));
        let config = config::Exits {
            enabled: true,
            reasons: reasons.collect(),
        };
        let roots = Arc::new(Roots::below(host.root()));
        let mut exits = Exits::new(&config, roots, counters.clone(), &mut columns);
        exits.pause = Duration::ZERO;
        Self {
            host,
            counters,
            columns,
            exits,
        }
    }

    fn new(reasons: &[&str], counters: Scripted) -> Self {
        let host = FakeHost::new();
        host.tracepoints("kvm_amd");
        Self::on(host, reasons, counters)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>, OpenError> {
        let vm = vm(100, TID, 1);
        let vcpu = vm.vcpus[0];
        self.exits.open(&Target { vm: &vm, vcpu })
    }

    /// Each known column in one tick, as `label delta`.
    fn read(&self, reader: &mut dyn Reader) -> Vec<String> {
        let mut reading = Reading::new(&self.columns, Arc::default());
        reader.read(&mut reading).unwrap();
        let (deltas, known) = reading.placed();
        let columns = self.columns.placed.iter().zip(deltas).enumerate();
        columns
            .filter(|(n, _)| known >> n & 1 == 1)
            .map(|(_, (column, delta))| format!("{} {delta}", column.labels[0].1))
            .collect()
    }

    fn refusal(&mut self) -> Reason {
        match self.open() {
            Err(OpenError::Refused(reason)) => reason,
            Err(OpenError::Gone) => panic!("gone"),
            Ok(_) => panic!("opened"),
        }
    }

    fn code(&self) -> &'static str {
        self.exits.state().code()
    }
}

/// Counts of userspace exits, wakeups, pio, mmio, interrupts, all exits, and the reasons.
fn counts(counts: &[u64]) -> Step {
    Step::totals(1000, 1000, counts)
}

#[test]
fn one_group_has_the_events_and_the_filtered_reasons() {
    let mut rig = Rig::new(&["hlt", "io"], Scripted::new());
    assert_eq!(rig.exits.state(), SourceState::Up);
    let reader = rig.open().unwrap();
    let groups = rig.counters.opened(TID);
    assert_eq!(groups.len(), 1);
    let shown = |attr: &crate::sources::pmu::counters::Attr| {
        let filter = attr.filter.map(|filter| filter.to_string());
        (attr.kind, attr.words[0], filter.unwrap_or_default())
    };
    let attrs: Vec<_> = groups[0].iter().map(shown).collect();
    let expected = [
        (2, 102, ""),
        (2, 103, ""),
        (2, 104, ""),
        (2, 105, "type!=0"),
        (2, 106, ""),
        (2, 101, ""),
        (2, 101, "exit_reason==120&&isa==2"),
        (2, 101, "exit_reason==123&&isa==2"),
    ];
    assert_eq!(
        attrs,
        expected.map(|(t, id, filter)| (t, id, filter.to_owned()))
    );
    assert_eq!(reader.descriptors(), 8);
    let plain =
        |attr: &crate::sources::pmu::counters::Attr| !attr.exclude_host && !attr.exclude_guest;
    assert!(groups[0].iter().all(plain));
}

#[test]
fn deltas_by_reason_add_up_to_all_exits() {
    let script = vec![
        counts(&[5, 4, 3, 2, 1, 100, 10, 20]),
        counts(&[6, 4, 3, 2, 1, 150, 15, 20]),
    ];
    let mut rig = Rig::new(&["hlt", "io"], Scripted::new().script(TID, 0, script));
    let mut reader = rig.open().unwrap();
    let first = rig.read(&mut *reader);
    let expected = "userspace_exit 5,vcpu_wakeup 4,pio 3,mmio 2,inj_virq 1,hlt 10,io 20,other 70";
    assert_eq!(first.join(","), expected);
    let second = rig.read(&mut *reader);
    assert_eq!(second[..2], ["userspace_exit 1", "vcpu_wakeup 0"]);
    assert_eq!(second[5..], ["hlt 5", "io 0", "other 45"]);
}

#[test]
fn without_reasons_all_exits_are_other() {
    let script = vec![counts(&[0, 0, 0, 0, 0, 7])];
    let mut rig = Rig::new(&[], Scripted::new().script(TID, 0, script));
    let mut reader = rig.open().unwrap();
    assert_eq!(rig.read(&mut *reader)[5..], ["other 7"]);
}

/// The reasons are read after the total, and exits continue in between.
#[test]
fn reasons_ahead_of_the_total_are_corrected_later() {
    let script = vec![
        counts(&[0, 0, 0, 0, 0, 10, 4]),
        counts(&[0, 0, 0, 0, 0, 20, 17]),
        counts(&[0, 0, 0, 0, 0, 30, 22]),
    ];
    let mut rig = Rig::new(&["io"], Scripted::new().script(TID, 0, script));
    let mut reader = rig.open().unwrap();
    let exits = |tick: Vec<String>| tick[5..].join(",");
    assert_eq!(exits(rig.read(&mut *reader)), "io 4,other 6");
    assert_eq!(exits(rig.read(&mut *reader)), "io 13,other 0");
    assert_eq!(exits(rig.read(&mut *reader)), "io 5,other 2");
}

#[test]
fn failed_read_is_charged_with_the_next() {
    let script = vec![counts(&[1]), Step::Fails(libc::EIO), counts(&[9])];
    let mut rig = Rig::new(&[], Scripted::new().script(TID, 0, script));
    let mut reader = rig.open().unwrap();
    assert_eq!(rig.read(&mut *reader)[0], "userspace_exit 1");
    let mut reading = Reading::new(&rig.columns, Arc::default());
    assert!(matches!(
        reader.read(&mut reading),
        Err(ReadError::Failed(_))
    ));
    assert_eq!(reading.placed().1, 0);
    assert_eq!(rig.read(&mut *reader)[0], "userspace_exit 8");
}

#[test]
fn unreported_exits_are_absent() {
    let host = FakeHost::new();
    host.tracepoints("kvm_pvm");
    let mut rig = Rig::on(host, &["hlt"], Scripted::new());
    assert_eq!(rig.code(), "no_exit_tracepoint");
    let mut reader = rig.open().unwrap();
    assert_eq!(rig.read(&mut *reader).len(), 5, "events, no exits");
}

#[test]
fn kvm_may_be_loaded_later() {
    let mut rig = Rig::on(FakeHost::new(), &[], Scripted::new());
    assert_eq!(rig.code(), "no_tracefs");
    assert_eq!(rig.refusal().code, "no_tracefs");
    rig.host.tracepoints("kvm_intel");
    rig.open().unwrap();
    assert_eq!(rig.code(), "");
}

#[test]
fn reloaded_modules_have_new_numbers() {
    let stale = Scripted::new().refusing(|_, attr| (attr.words[0] == 102).then_some(libc::EINVAL));
    let mut rig = Rig::new(&[], Scripted::new());
    let counters = Arc::new(stale);
    rig.exits.counters = counters.clone();
    rig.host.file(
        "sys/kernel/tracing/events/kvm/kvm_userspace_exit/id",
        "202\n",
    );
    let _reader = rig.open().unwrap();
    assert_eq!(counters.opened(TID)[0][0].words[0], 202);
}

/// A kernel that refuses events with these IDs, and the number of its refusals.
fn refusing(ids: &'static [u64], errno: i32) -> (Scripted, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let kernel = Scripted::new().refusing(move |_, attr| {
        let refused = ids.contains(&attr.words[0]);
        count.fetch_add(usize::from(refused), Ordering::Relaxed);
        refused.then_some(errno)
    });
    (kernel, asked)
}

#[test]
fn refused_tracepoint_is_dropped_for_all_vcpus_after_one_attempt() {
    let (kernel, asked) = refusing(&[105], libc::EINVAL);
    let mut rig = Rig::new(&["hlt"], kernel);
    for _ in 0..100 {
        let mut reader = rig.open().unwrap();
        assert_eq!(rig.read(&mut *reader).len(), 6, "all but mmio");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let SourceState::Degraded(reason) = rig.exits.state() else {
        panic!("{:?}", rig.exits.state());
    };
    assert_eq!(reason.code, "refused");
    assert!(reason.detail.contains("kvm_mmio"), "{reason:?}");
}

#[test]
fn refused_kvm_exit_drops_its_reasons() {
    let (kernel, asked) = refusing(&[101], libc::ENOENT);
    let mut rig = Rig::new(&["hlt", "io"], kernel);
    let mut reader = rig.open().unwrap();
    assert_eq!(rig.read(&mut *reader).len(), 5, "events, no exits");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(rig.code(), "refused");
}

#[test]
fn tracepoint_refused_only_on_a_vcpu_is_dropped_for_the_next() {
    let mut rig = Rig::new(&[], Scripted::new());
    let (kernel, asked) = refusing(&[105], libc::EINVAL);
    rig.exits.counters = Arc::new(kernel);
    for _ in 0..10 {
        assert!(rig.open().is_ok());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(rig.code(), "refused");
}

#[test]
fn temporary_refusal_affects_one_vcpu() {
    let mut rig = Rig::new(&[], Scripted::new());
    rig.exits.counters = Arc::new(Scripted::new().refusing(|_, _| Some(libc::ENOMEM)));
    assert_eq!(rig.refusal().code, "refused");
    assert_eq!(rig.exits.state(), SourceState::Up);
}

#[test]
fn tracefs_is_read_once_for_many_new_vcpus() {
    let mut rig = Rig::on(FakeHost::new(), &[], Scripted::new());
    rig.exits.pause = Duration::from_secs(3600);
    rig.exits.looked = Instant::now();
    let before = rig.exits.roots.opens();
    for _ in 0..100 {
        assert_eq!(rig.refusal().code, "no_tracefs");
    }
    assert_eq!(rig.exits.roots.opens(), before);
}

#[test]
fn missing_permission_names_the_capability() {
    let mut rig = Rig::new(&[], Scripted::new().refusing(|_, _| Some(libc::EACCES)));
    let SourceState::Down(reason) = rig.exits.state() else {
        panic!("the source is not down");
    };
    assert_eq!(reason.code, "no_permission");
    assert!(reason.fix.unwrap().contains("CAP_PERFMON"));
    assert_eq!(rig.refusal().code, "no_permission");
}

#[test]
fn no_descriptors_refuses_one_vcpu_and_leaves_nothing_open() {
    let mut rig = Rig::new(&[], Scripted::new().with_descriptors(6));
    let first = rig.open().unwrap();
    let reason = rig.refusal();
    assert_eq!(reason.code, "no_descriptors");
    assert!(
        reason.detail.contains("6 descriptors per vCPU"),
        "{reason:?}"
    );
    assert!(reason.fix.unwrap().contains("LimitNOFILE"));
    assert_eq!(
        rig.exits.state(),
        SourceState::Up,
        "other vCPUs are counted"
    );
    drop(first);
    assert_eq!(rig.counters.descriptors(), 0);
}

#[test]
fn missing_thread_does_not_change_the_source() {
    let gone = |tid, _: &_| (tid == TID).then_some(libc::ESRCH);
    let mut rig = Rig::new(&[], Scripted::new().refusing(gone));
    assert_eq!(rig.refusal().code, "no_such_thread");
    assert_eq!(rig.exits.state(), SourceState::Up);
}

#[test]
fn own_pid_namespace_opens_nothing() {
    let host = FakeHost::new();
    host.tracepoints("kvm_amd");
    // A different PID from that of getpid(2).
    std::os::unix::fs::symlink("999999999", host.path("proc/self")).unwrap();
    let mut rig = Rig::on(host, &[], Scripted::new());
    assert_eq!(rig.refusal().code, "pid_namespace");
}

#[test]
fn disabled_source_has_no_columns_and_opens_nothing() {
    let config = config::Exits {
        enabled: false,
        ..config::Exits::default()
    };
    let mut columns = Columns::default();
    let counters = Arc::new(Scripted::new());
    let roots = Arc::new(Roots::default());
    let mut exits = Exits::new(&config, roots, counters.clone(), &mut columns);
    let vm = vm(100, TID, 1);
    let mut reader = exits
        .open(&Target {
            vm: &vm,
            vcpu: vm.vcpus[0],
        })
        .unwrap();
    reader
        .read(&mut Reading::new(&columns, Arc::default()))
        .unwrap();
    assert_eq!((columns, counters.descriptors()), (Columns::default(), 0));
    assert_eq!(exits.state(), SourceState::Down(Reason::disabled("exits")));
}
