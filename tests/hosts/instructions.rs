//! Guest and host instructions separately, against the guest's own count and its thread's CPU
//! clock: on this machine each instruction takes four nanoseconds.

use crate::machine::{Clock, Console, Machine};
use crate::sandwich::{assert_within, Span};

/// Instructions per turn of the `spin` load in src/demo/guest/aarch64.rs: a `mov`, 65,536 times
/// two, and four. Also of `half`: its additional instruction is the store that exits.
pub(crate) const SPIN: f64 = 131_077.0;

/// Instructions per turn of `halt` and `io`, out of five. The store that exits never retires: KVM
/// performs it and resumes the guest after it.
const TELL: f64 = 4.0;

/// Seconds per instruction on this machine.
const NANOSECONDS: f64 = 4e-9;

/// Least and most instructions of a switch to another thread and back, during which the thread's
/// clock runs but its counters do not: 5,900 in Debian's Linux 6.12.
const SWITCH: (f64, f64) = (4_000.0, 12_000.0);

/// Tolerated relative error of a count of instructions.
pub(crate) const TOLERANCE: f64 = 0.03;

const GUEST: &[(&str, &str)] = &[("mode", "guest")];
const HOST: &[(&str, &str)] = &[("mode", "host")];

fn watch(load: &str, seconds: u32) -> Console {
    let script = format!(
        r#"
start_exporter
start_vm watched {load} 1
scrape_until '^kvm_vcpu_instructions_total.vm="watched"' >/dev/null
sandwich watched first
sleep {seconds}
sandwich watched last
"#
    );
    Machine::arm64(Clock::Icount).run(&script)
}

/// Instructions of the guest, of the host, and of both by the thread's CPU time.
fn check(load: &str, seconds: u32, instructions_a_turn: f64) -> (f64, f64) {
    let span = Span::of(&watch(load, seconds), "watched");
    let guest = span.delta("kvm_vcpu_instructions_total", GUEST);
    let host = span.delta("kvm_vcpu_instructions_total", HOST);
    let (least, most) = span.turns();
    let truth = (least * instructions_a_turn, most * instructions_a_turn);
    assert_within(
        &format!("{load}: guest instructions"),
        guest,
        truth,
        TOLERANCE,
    );
    let (least, most) = span.cpu_seconds();
    let switches = span.delta("kvm_vcpu_context_switches_total", &[]);
    let all = (
        least / NANOSECONDS - SWITCH.1 * switches,
        most / NANOSECONDS - SWITCH.0 * switches,
    );
    let counted = guest + host;
    println!("{load}: all instructions: {counted}, truth {all:?}, {switches} switches");
    assert!(all.0 * (1.0 - TOLERANCE) <= counted && counted <= all.1 * (1.0 + TOLERANCE));
    let cycles = span.delta("kvm_vcpu_cycles_total", GUEST);
    assert_within(
        &format!("{load}: cycles an instruction"),
        cycles / guest,
        (4.0, 4.0),
        0.001,
    );
    if load == "spin" {
        let time = span.delta("kvm_vcpu_guest_seconds_total", &[]);
        let truth = (truth.0 * NANOSECONDS, truth.1 * NANOSECONDS);
        // The kernel samples the thread's mode 100 times a second.
        assert_within("spin: seconds in the guest", time, truth, 0.05);
    }
    (guest, host)
}

#[test]
fn a_guest_that_never_leaves() {
    let (guest, host) = check("spin", 4, SPIN);
    assert!(host < 0.05 * guest, "guest {guest}, host {host}");
}

#[test]
fn a_guest_whose_vmm_does_the_work() {
    let (guest, host) = check("io", 20, TELL);
    assert!(host > guest, "guest {guest}, host {host}");
}

/// Entering and leaving the guest and the timer's ticks add to the VMM's spinning.
#[test]
fn a_guest_and_a_vmm_that_do_as_much() {
    let (guest, host) = check("half", 8, SPIN);
    let ratio = host / guest;
    println!("half: {ratio:.4} times as much in the host");
    assert!((1.0..1.1).contains(&ratio), "guest {guest}, host {host}");
}

#[test]
fn an_idle_guest() {
    let (guest, host) = check("halt", 20, TELL);
    assert!(host > guest, "guest {guest}, host {host}");
}
