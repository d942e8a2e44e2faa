use super::*;
use crate::fake_host::FakeHost;
use crate::metric::FactValue;

mod held;

fn source(host: &FakeHost) -> KvmStat {
    let roots = Arc::new(Roots::below(host.root()));
    KvmStat::new(config::KvmStat::default(), roots)
}

fn vm(pid: i32, ordinal: u32) -> Vm {
    let mut vm = crate::engine::fixture::vm(pid, pid, 1);
    vm.key.ordinal = ordinal;
    vm
}

/// A VM with a running process, with the start time of [`vm`].
fn running(host: &FakeHost, pid: i32, ordinal: u32) -> Vm {
    host.process(pid, 1, &["vmm"], "");
    vm(pid, ordinal)
}

/// Each fact as `stat value`.
fn read(source: &mut KvmStat, vm: &Vm) -> Vec<String> {
    let facts = source.read(vm).unwrap();
    let counters = facts
        .iter()
        .filter(|fact| fact.metric.name == KVM_STAT.name);
    let shown = counters.map(|fact| match &fact.value {
        FactValue::Int(value) => format!("{} {value}", fact.labels[0].1),
        other => panic!("{other:?}"),
    });
    shown.collect()
}

fn code(source: &KvmStat) -> &'static str {
    source.state().code()
}

#[test]
fn counters_are_shown_and_gauges_are_not() {
    let host = FakeHost::new();
    for (stat, value) in [
        ("exits", 7),
        ("halt_exits", 3),
        ("mmu_unsync", 9),
        ("pages_4k", 5),
    ] {
        host.kvm_stat(100, 9, stat, value);
    }
    let mut source = source(&host);
    assert_eq!(source.state(), SourceState::Up);
    let vm = running(&host, 100, 9);
    assert_eq!(read(&mut source, &vm), ["exits 7", "halt_exits 3"]);
}

#[test]
fn counters_before_linux_5_14_get_their_current_names() {
    let host = FakeHost::new();
    // Names as in Linux 5.10.
    for (stat, value) in [
        ("exits", 7),
        ("irq_window", 3),
        ("nmi_window", 2),
        ("request_irq", 1),
    ] {
        host.kvm_stat(100, 9, stat, value);
    }
    let vm = running(&host, 100, 9);
    let mut reported = read(&mut source(&host), &vm);
    reported.sort_unstable();
    let expected = [
        "exits 7",
        "irq_window_exits 3",
        "nmi_window_exits 2",
        "request_irq_exits 1",
    ];
    assert_eq!(reported, expected);
}

#[test]
fn reset_counter_continues() {
    let host = FakeHost::new();
    let mut source = source(&host);
    let vm = running(&host, 100, 9);
    for (value, total) in [(7, 7), (10, 10), (0, 10), (4, 14)] {
        host.kvm_stat(100, 9, "exits", value);
        assert_eq!(read(&mut source, &vm), [format!("exits {total}")]);
    }
    source.forget(vm.key);
    assert_eq!(read(&mut source, &vm), ["exits 4"]);
}

#[test]
fn vms_of_a_process_are_identified_by_descriptor_or_order() {
    let host = FakeHost::new();
    host.process(100, 1, &["vmm"], "")
        .thread(100, 101, "main", 1);
    host.kvm_stat(100, 9, "exits", 1)
        .kvm_stat(101, 12, "exits", 2);
    host.kvm_stat(200, 12, "exits", 3);
    let mut source = source(&host);
    assert_eq!(read(&mut source, &vm(100, 9)), ["exits 1"]);
    assert_eq!(
        read(&mut source, &vm(100, 12)),
        ["exits 2"],
        "created by another thread"
    );
    assert_eq!(read(&mut source, &vm(100, 1)), ["exits 2"], "the second");
    assert_eq!(read(&mut source, &vm(100, 2)).len(), 0);
    assert_eq!(read(&mut source, &vm(300, 12)).len(), 0);
}

#[test]
fn missing_files_are_a_reason_and_no_error() {
    let host = FakeHost::new();
    let mut source = source(&host);
    assert_eq!(code(&source), "no_debugfs");
    assert_eq!(read(&mut source, &vm(100, 9)).len(), 0);
}

#[test]
fn text_that_is_no_number_is_skipped() {
    let host = FakeHost::new();
    host.kvm_stat(100, 9, "exits", 1);
    host.file("sys/kernel/debug/kvm/100-9/exits", "many\n");
    let vm = running(&host, 100, 9);
    assert_eq!(read(&mut source(&host), &vm).len(), 0);
}

#[test]
fn reused_pid_ends_the_vm_and_charges_nothing() {
    let host = FakeHost::new();
    host.kvm_stat(100, 9, "exits", 7);
    let mut source = source(&host);
    let vm = running(&host, 100, 9);
    assert_eq!(read(&mut source, &vm), ["exits 7"]);
    // Another VMM with the same PID and descriptor.
    host.process(100, 2, &["vmm"], "");
    host.kvm_stat(100, 9, "exits", 1_000_000);
    assert!(matches!(source.read(&vm), Err(ReadError::Gone)));
    host.process(100, 1, &["vmm"], "");
    host.kvm_stat(100, 9, "exits", 8);
    assert_eq!(read(&mut source, &vm), ["exits 8"]);
    host.remove("proc/100");
    assert!(matches!(source.read(&vm), Err(ReadError::Gone)));
}

/// The real source returns data or a reason.
#[test]
fn this_machine_has_data_or_a_reason() {
    let source = KvmStat::new(config::KvmStat::default(), Arc::default());
    match source.state() {
        SourceState::Degraded(reason) => println!("{reason:?}"),
        state => assert_eq!(state, SourceState::Up),
    }
}
