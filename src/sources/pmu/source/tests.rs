use super::*;
use crate::discover::Vm;
use crate::engine::fixture::vm;
use crate::sources::pmu::scripted::{Scripted, Step};

const TID: i32 = 4711;
const MS: u64 = 1_000_000;

/// A source on a fixture host with one VM.
struct Rig {
    _dir: tempfile::TempDir,
    counters: Arc<Scripted>,
    columns: Columns,
    pmu: Pmu,
    vm: Vm,
}

impl Rig {
    fn new(counters: Scripted) -> Self {
        Self::on(&[], counters)
    }

    fn on(files: &[(&str, &str)], counters: Scripted) -> Self {
        Self::make(files, counters, false)
    }

    /// A source with the sched source's guest-time column before it.
    fn with_guest_time(counters: Scripted) -> Self {
        Self::make(&[], counters, true)
    }

    fn make(files: &[(&str, &str)], counters: Scripted, guest_time: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let task = dir.path().join(format!("proc/100/task/{TID}"));
        std::fs::create_dir_all(task).unwrap();
        let counters = Arc::new(counters);
        let mut columns = Columns::default();
        if guest_time {
            columns.add(Column {
                metric: &sched::GUEST,
                labels: Vec::new(),
                unit: Unit::Nanoseconds,
                scope: Scope::Placed,
            });
        }
        let pmu = Pmu::new(
            &config::Pmu::default(),
            &Arc::new(Roots::below(dir.path())),
            &CpuModel::Unknown,
            counters.clone(),
            &mut columns,
        );
        Self {
            _dir: dir,
            counters,
            columns,
            pmu,
            vm: vm(100, TID, 1),
        }
    }

    fn open(&mut self) -> Result<Box<dyn Reader>, OpenError> {
        let vcpu = self.vm.vcpus[0];
        self.pmu.open(&Target { vm: &self.vm, vcpu })
    }

    fn refusal(&mut self) -> Reason {
        match self.open() {
            Err(OpenError::Refused(reason)) => reason,
            Err(OpenError::Gone) => panic!("gone"),
            Ok(_) => panic!("opened"),
        }
    }

    /// Value of a metric and mode (or group) in one tick; `None` while unknown.
    fn read(&self, reader: &mut dyn Reader) -> impl Fn(&str, &str) -> Option<u64> + '_ {
        let mut reading = Reading::new(&self.columns, Arc::default());
        if let Some(column) = self.columns.find_placed(&sched::GUEST) {
            reading.add(column, 1000 * MS);
        }
        reader.read(&mut reading).unwrap();
        move |metric, label| {
            let same = |column: &&Column| {
                column.metric == metric && column.labels.iter().any(|(_, value)| value == label)
            };
            let find = |list: &[Column]| list.iter().position(|column| same(&column));
            let (placed, known) = reading.placed();
            let (vcpu, added, _) = reading.vcpu();
            let value =
                |values: &[u64], known: u128, n: usize| (known >> n & 1 == 1).then(|| values[n]);
            match find(&self.columns.placed) {
                Some(n) => value(placed, known, n),
                None => value(vcpu, added, find(&self.columns.vcpu).unwrap()),
            }
        }
    }
}

/// A read of guest cycles.
fn cycles(enabled: u64, running: u64, cycles: u64) -> Step {
    Step::totals(enabled * MS, running * MS, &[cycles])
}

/// One read per second: guest cycles, and all other events of the only group.
fn seconds(counts: impl IntoIterator<Item = (u64, u64)>) -> Vec<Step> {
    let second = |(n, (guest, host)): (u64, (u64, u64))| {
        let counts = [guest, guest, guest, guest, guest, guest, host, host];
        Step::totals(n * 1000 * MS, n * 1000 * MS, &counts)
    };
    (1..).zip(counts).map(second).collect()
}

#[test]
fn guest_counters_that_never_count_are_absent_with_a_reason() {
    let steps = seconds((1..=8).map(|n| (0, n * 1000)));
    let mut rig = Rig::with_guest_time(Scripted::new().script(TID, 0, steps));
    let mut reader = rig.open().unwrap();
    for second in 1..=8 {
        let tick = rig.read(&mut *reader);
        for metric in ["kvm_vcpu_cycles_total", "kvm_vcpu_cache_misses_total"] {
            assert_eq!(tick(metric, "guest"), None, "{metric} in second {second}");
        }
        assert_eq!(tick("kvm_vcpu_cycles_total", "host"), Some(1000));
        drop(tick);
        let code = rig.pmu.state().code();
        let expected = if second > 5 { "guest_not_counted" } else { "" };
        assert_eq!(code, expected, "in second {second}");
    }
    drop(reader);
    assert_eq!(rig.pmu.state(), SourceState::Up);
}

#[test]
fn guest_counters_that_stop_are_withdrawn_until_they_count() {
    let counts = [7, 7, 7, 7, 7, 7, 7, 9, 9].map(|guest| (guest, 0));
    let mut rig = Rig::with_guest_time(Scripted::new().script(TID, 0, seconds(counts)));
    let mut reader = rig.open().unwrap();
    let cycles = |reader: &mut dyn Reader, rig: &Rig| {
        let mut reading = Reading::new(&rig.columns, Arc::default());
        let guest_time = rig.columns.find_placed(&sched::GUEST);
        reading.add(guest_time.unwrap(), 1000 * MS);
        reader.read(&mut reading).unwrap();
        let cycles = rig.columns.find_placed(&CYCLES).unwrap();
        (reading.get(cycles), reading.withdrawn().count_ones())
    };
    let mut seen = Vec::new();
    for _ in 0..9 {
        let (counted, withdrawn) = cycles(&mut *reader, &rig);
        seen.push((counted, withdrawn, rig.pmu.state().code()));
    }
    let quiet = (Some(0), 0, "");
    let withdrawn = (None, 6, "guest_not_counted");
    let back = (Some(2), 0, "");
    assert_eq!(
        seen,
        [
            (Some(7), 0, ""),
            quiet,
            quiet,
            quiet,
            quiet,
            withdrawn,
            withdrawn,
            back,
            quiet
        ]
    );
}

fn refuse_thread(errno: i32) -> Scripted {
    Scripted::new().refusing(move |tid, _| (tid == TID).then_some(errno))
}

fn reason(state: SourceState) -> Reason {
    match state {
        SourceState::Degraded(reason) | SourceState::Down(reason) => reason,
        SourceState::Up => panic!("up"),
    }
}

#[test]
fn a_multiplexed_group_is_scaled_by_its_interval() {
    let steps = vec![cycles(1000, 250, 1000), cycles(2000, 1250, 2000)];
    let mut rig = Rig::new(Scripted::new().script(TID, 0, steps));
    let mut reader = rig.open().unwrap();
    let tick = rig.read(&mut *reader);
    assert_eq!(tick("kvm_vcpu_cycles_total", "guest"), Some(4000));
    assert_eq!(
        tick("kvm_vcpu_pmu_running_seconds_total", "guest+host"),
        Some(250 * MS)
    );
    let tick = rig.read(&mut *reader);
    assert_eq!(tick("kvm_vcpu_cycles_total", "guest"), Some(1000));
    assert_eq!(
        tick("kvm_vcpu_pmu_enabled_seconds_total", "guest+host"),
        Some(1000 * MS)
    );
    assert_eq!(rig.pmu.state(), SourceState::Up);
}

#[test]
fn starved_group_is_unknown_but_its_time_is_known() {
    let steps = vec![cycles(1000, 0, 0), cycles(2000, 500, 10)];
    let mut rig = Rig::new(Scripted::new().script(TID, 0, steps));
    let mut reader = rig.open().unwrap();
    let tick = rig.read(&mut *reader);
    assert_eq!(tick("kvm_vcpu_cycles_total", "guest"), None);
    assert_eq!(
        tick("kvm_vcpu_pmu_enabled_seconds_total", "guest+host"),
        Some(1000 * MS)
    );
    assert_eq!(
        tick("kvm_vcpu_pmu_running_seconds_total", "guest+host"),
        Some(0)
    );
    let tick = rig.read(&mut *reader);
    assert_eq!(tick("kvm_vcpu_cycles_total", "guest"), Some(40));
}

#[test]
fn counts_continue_after_a_wrap() {
    let narrow = (1 << 48) - 1;
    // Half an hour of counting first, as a real counter needs to get there.
    let steps = vec![
        cycles(2_000_000, 2_000_000, narrow - 4),
        cycles(2_000_001, 2_000_001, 5),
    ];
    let mut rig = Rig::new(Scripted::new().script(TID, 0, steps));
    let mut reader = rig.open().unwrap();
    assert_eq!(
        rig.read(&mut *reader)("kvm_vcpu_cycles_total", "guest"),
        Some(narrow - 4)
    );
    assert_eq!(
        rig.read(&mut *reader)("kvm_vcpu_cycles_total", "guest"),
        Some(10)
    );
}

#[test]
fn guest_and_host_are_separate_columns() {
    let mut rig = Rig::new(Scripted::new());
    let mut reader = rig.open().unwrap();
    let tick = rig.read(&mut *reader);
    assert_eq!(
        tick("kvm_vcpu_instructions_total", "guest"),
        Some(2_000_000)
    );
    assert_eq!(tick("kvm_vcpu_instructions_total", "host"), Some(8_000_000));
    assert_eq!(reader.descriptors(), 8);
    assert_eq!(rig.pmu.descriptors(), 8);
}

#[test]
fn no_descriptors_names_the_limit_and_leaves_nothing_open() {
    let mut rig = Rig::new(Scripted::new().with_counters(7).with_descriptors(7));
    let reason = rig.refusal();
    assert_eq!(reason.code, "no_descriptors");
    assert!(
        reason.detail.contains("8 descriptors per vCPU"),
        "{reason:?}"
    );
    assert!(reason.fix.unwrap().contains("LimitNOFILE"));
    assert_eq!(rig.counters.descriptors(), 0);
}

#[test]
fn refused_thread_does_not_change_the_source() {
    let mut rig = Rig::new(refuse_thread(libc::EBUSY));
    assert_eq!(rig.refusal().code, "busy");
    assert_eq!(rig.pmu.state(), SourceState::Up);
}

#[test]
fn thread_that_exits_before_its_second_group_leaves_nothing_open() {
    // Guest and host are two groups here; the thread exits between them.
    let counters = Scripted::new()
        .with_counters(6)
        .refusing(|tid, attr| (tid == TID && attr.exclude_guest).then_some(libc::ESRCH));
    let mut rig = Rig::new(counters);
    assert_eq!(rig.refusal().code, "no_such_thread");
    assert_eq!(
        rig.counters.descriptors(),
        0,
        "its first group is closed too"
    );
    assert_eq!(rig.pmu.state(), SourceState::Up);
}

#[test]
fn failed_group_does_not_stop_the_others() {
    let counters = Scripted::new()
        .with_counters(6)
        .script(TID, 0, vec![Step::Fails(libc::EIO)]);
    let mut rig = Rig::new(counters);
    let mut reader = rig.open().unwrap();
    let mut reading = Reading::new(&rig.columns, Arc::default());
    assert!(matches!(
        reader.read(&mut reading),
        Err(ReadError::Failed(_))
    ));
    let known: Vec<_> = (0..rig.columns.placed.len())
        .filter(|n| reading.placed().1 >> n & 1 == 1)
        .map(|n| rig.columns.placed[n].labels[0].1.as_str())
        .collect();
    assert_eq!(known, ["host", "host"]);
}

#[test]
fn read_of_exited_thread_is_gone() {
    let script = vec![Step::Fails(libc::ESRCH)];
    let mut rig = Rig::new(Scripted::new().script(TID, 0, script));
    let mut reader = rig.open().unwrap();
    let mut reading = Reading::new(&rig.columns, Arc::default());
    assert!(matches!(reader.read(&mut reading), Err(ReadError::Gone)));
}

#[test]
fn mediated_vpmu_omits_guest_columns() {
    let files = [("sys/module/kvm_amd/parameters/enable_mediated_pmu", "Y\n")];
    let mut rig = Rig::on(&files, Scripted::new());
    assert_eq!(rig.pmu.mode(), ("host_only", "mediated_vpmu"));
    assert_eq!(reason(rig.pmu.state()).code, "mediated_vpmu");
    assert!(rig
        .columns
        .placed
        .iter()
        .all(|c| c.labels == [("mode", "host".to_owned())]));
    let _reader = rig.open().unwrap();
    let opened = rig.counters.opened(TID).concat();
    assert!(!opened.is_empty() && opened.iter().all(|attr| attr.exclude_guest));
}

#[test]
fn later_mediated_vpmu_is_detected_before_open() {
    let mut rig = Rig::new(Scripted::new());
    assert_eq!(rig.pmu.mode(), ("full", ""));
    let dir = rig._dir.path().join("sys/module/kvm_intel/parameters");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("enable_mediated_pmu"), "Y\n").unwrap();
    assert_eq!(rig.refusal().code, "mediated_vpmu");
    assert_eq!(rig.counters.opened(TID), Vec::<Vec<_>>::new());
}

#[test]
fn types_of_core_are_summed() {
    let files = [
        ("sys/bus/event_source/devices/cpu_core/type", "4"),
        ("sys/bus/event_source/devices/cpu_core/cpus", "0-7"),
        ("sys/bus/event_source/devices/cpu_atom/type", "10"),
        ("sys/bus/event_source/devices/cpu_atom/cpus", "8-15"),
    ];
    // Of 1000 ms, 600 on one type and 200 on the other: 200 were lost to other users.
    let counters = Scripted::new()
        .script(TID, 0, vec![cycles(1000, 600, 600)])
        .script(TID, 1, vec![cycles(1000, 200, 200)]);
    let mut rig = Rig::on(&files, counters);
    let mut reader = rig.open().unwrap();
    let tick = rig.read(&mut *reader);
    assert_eq!(tick("kvm_vcpu_cycles_total", "guest"), Some(1000));
    assert_eq!(
        tick("kvm_vcpu_pmu_running_seconds_total", "guest+host"),
        Some(800 * MS)
    );
    assert_eq!(rig.counters.opened(TID).len(), 2);
}

#[test]
fn paranoid_kernel_turns_it_off_with_a_reason() {
    let files = [("proc/sys/kernel/perf_event_paranoid", "3\n")];
    let mut rig = Rig::on(&files, Scripted::new().refusing(|_, _| Some(libc::EACCES)));
    assert_eq!(rig.pmu.mode(), ("off", "no_permission"));
    assert!(matches!(rig.pmu.state(), SourceState::Down(_)));
    assert_eq!(rig.columns, Columns::default());
    let mut reader = rig.open().unwrap();
    reader
        .read(&mut Reading::new(&rig.columns, Arc::default()))
        .unwrap();
    assert_eq!(reader.descriptors(), 0);
}

#[test]
fn this_machine_counts_its_own_thread() {
    let mut columns = Columns::default();
    let counters = Arc::new(crate::sources::pmu::perf::Perf);
    let model = CpuModel::read(&Roots::default()).unwrap();
    let config = config::Pmu::default();
    let roots = Arc::new(Roots::default());
    let mut pmu = Pmu::new(&config, &roots, &model, counters, &mut columns);
    println!("mode: {:?}", pmu.mode());
    let vm = vm(100, rustix::thread::gettid().as_raw_nonzero().get(), 1);
    let vcpu = vm.vcpus[0];
    match pmu.open(&Target { vm: &vm, vcpu }) {
        Ok(mut reader) => {
            let mut reading = Reading::new(&columns, Arc::default());
            reader.read(&mut reading).unwrap();
            assert_ne!(reading.vcpu().1, 0);
            assert_eq!(reader.descriptors(), pmu.descriptors());
        }
        Err(error) => assert_eq!(pmu.mode().0, "off", "{error}"),
    }
}
