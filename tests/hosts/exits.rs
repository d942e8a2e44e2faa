//! Exits by reason on AMD's SVM, where KVM reports every one, against KVM's own counters of the
//! same VM and against the VMM's.

use crate::machine::{Clock, Console, Machine};
use crate::sandwich::Span;

/// All counts of the guest are compared while it is stopped.
const SCRIPT: &str = r#"
start_exporter "sampling: {tick: 100ms, inventory: 1s}
sources: {exits: {reasons: [io, hlt, npf, ept_violation]}, kvm_stat: {period: 1s}}"
start_vm ports io 1
start_vm halts halt 1
start_vm halves half 1
scrape_until 'kvm_vcpu_exits_total.vm="ports".*reason="io"' >/dev/null
scrape_until 'kvm_vcpu_exits_total.vm="halts".*reason="hlt"' >/dev/null
scrape_until 'kvm_vcpu_exits_total.vm="halves".*reason="io"' >/dev/null
scrape_until 'kvm_vm_kvm_stat_total.vm="ports",stat="io_exits"' >/dev/null
stand_still() {
    local pid=$(cat "/tmp/$1.pid")
    section "$1.$2.before" ask "$1" stats
    kill -STOP "$pid"
    section "$1.$2" scrape_anew
    section "$1.$2.exits" cat /sys/kernel/debug/kvm/$pid-*/exits
    section "$1.$2.io_exits" cat /sys/kernel/debug/kvm/$pid-*/io_exits
    section "$1.$2.halt_exits" cat /sys/kernel/debug/kvm/$pid-*/halt_exits
    kill -CONT "$pid"
    section "$1.$2.after" ask "$1" stats
}
stand_still ports first
stand_still halts first
stand_still halves first
sleep 5
stand_still ports last
stand_still halts last
stand_still halves last
"#;

/// Delta of a counter in KVM debugfs.
fn delta(console: &Console, vm: &str, stat: &str) -> f64 {
    let at = |when: &str| -> f64 {
        let section = console.section(&format!("{vm}.{when}.{stat}"));
        section.trim().parse().expect("debugfs has a number")
    };
    at("last") - at("first")
}

/// Compares a load's reason with KVM's count `stat`, and the total with the VMM's.
fn hold(console: &Console, vm: &'static str, reason: &str, stat: &str) {
    let (first, last) = (format!("{vm}.first"), format!("{vm}.last"));
    let span = Span::named(console, vm, &first, &last);
    let exits = |reason: &str| span.delta("kvm_vcpu_exits_total", &[("reason", reason)]);
    let all = span.delta("kvm_vcpu_exits_total", &[]);
    println!(
        "{vm}: {} exits, {} of them {reason}, {} other",
        all,
        exits(reason),
        exits("other")
    );
    assert!(exits(reason) > 100.0, "{vm} hardly ran");
    assert_eq!(exits(reason), delta(console, vm, stat), "{vm}: {stat}");
    let (least, most) = span.turns();
    // Each turn is an exit for this reason; the guest can be stopped between its count and its
    // exit.
    assert!(
        least - 1.0 <= exits(reason) && exits(reason) <= most + 1.0,
        "{vm}: {} {reason} in {least} to {most} turns",
        exits(reason)
    );
    assert_eq!(all, delta(console, vm, "exits"), "{vm}: all exits");
    let event = |event: &str| span.delta("kvm_vcpu_kvm_events_total", &[("event", event)]);
    let (least, most) = span.truth(|stats| stats.vcpus[0].exits as f64);
    // The VMM increments its count after the kernel, and stopping it is a return too.
    let returns = event("userspace_exit");
    assert!(
        least - 1.0 <= returns && returns <= most + 2.0,
        "{vm}: {returns} returns to the VMM, which counted {least} to {most}"
    );
}

#[test]
fn exits_are_those_that_kvm_and_the_vmm_count() {
    let console = Machine::amd64().run(SCRIPT);
    hold(&console, "ports", "io", "io_exits");
    hold(&console, "halts", "hlt", "halt_exits");
    hold(&console, "halves", "io", "io_exits");
    let last = console.scrape("ports.last");
    let reasons = last.all("kvm_vcpu_exits_total", &[("vm", "ports")]);
    assert_eq!(
        reasons
            .filter(|s| s.label("reason") == "ept_violation")
            .count(),
        0,
        "Intel's reasons are absent on AMD"
    );
    let port = [("vm", "ports"), ("event", "pio")];
    let writes = last.sum("kvm_vcpu_kvm_events_total", &port);
    let io = last.sum("kvm_vcpu_exits_total", &[("vm", "ports"), ("reason", "io")]);
    assert_eq!(writes, io, "each is one access");
    let stat = [("vm", "ports"), ("stat", "io_exits")];
    let stat = last
        .one("kvm_vm_kvm_stat_total", &stat)
        .expect("debugfs is open here");
    let most: f64 = console
        .section("ports.last.io_exits")
        .trim()
        .parse()
        .expect("a number");
    let least: f64 = console
        .section("ports.first.io_exits")
        .trim()
        .parse()
        .expect("a number");
    assert!(least < stat && stat <= most, "{least} < {stat} <= {most}");
    for source in ["exits", "kvm_stat"] {
        let up = [("source", source), ("reason", "")];
        assert_eq!(
            last.one("kvm_exporter_source_up", &up),
            Some(1.0),
            "{source}"
        );
    }
}

/// A write to a register without a device is a data abort from the guest's level, and one access.
const ARM_SCRIPT: &str = r#"
start_exporter "sampling: {tick: 100ms, inventory: 1s}
sources: {exits: {reasons: [dabt_low, irq, wfx]}, kvm_stat: {period: 1s}}"
start_vm ports io 1
scrape_until 'kvm_vcpu_exits_total.vm="ports".*reason="dabt_low"' >/dev/null
stand_still() {
    local pid=$(cat /tmp/ports.pid)
    section "$1.before" ask ports stats
    kill -STOP "$pid"
    section "$1" scrape_anew
    section "ports.$1.exits" cat /sys/kernel/debug/kvm/$pid-*/exits
    section "ports.$1.mmio_exit_user" cat /sys/kernel/debug/kvm/$pid-*/mmio_exit_user
    kill -CONT "$pid"
    section "$1.after" ask ports stats
}
stand_still first
sleep 5
stand_still last
"#;

#[test]
fn exits_of_arm64_are_told_by_exception_class() {
    let console = Machine::arm64(Clock::Free).run(ARM_SCRIPT);
    let span = Span::of(&console, "ports");
    let exits = |labels: &[_]| span.delta("kvm_vcpu_exits_total", labels);
    let aborts = exits(&[("reason", "dabt_low")]);
    println!(
        "{} exits, {aborts} data aborts, {} interrupts",
        exits(&[]),
        exits(&[("reason", "irq")]),
    );
    let accesses = delta(&console, "ports", "mmio_exit_user");
    let event = |event| span.delta("kvm_vcpu_kvm_events_total", &[("event", event)]);
    assert!(accesses > 100.0);
    assert_eq!(event("mmio"), accesses);
    assert!(
        aborts >= accesses && aborts <= exits(&[]),
        "{aborts} {accesses}"
    );
    assert_eq!(exits(&[]), delta(&console, "ports", "exits"));
}
