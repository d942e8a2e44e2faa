//! Real KVM guests with known exits: counted by the VMM or the guest, and exact for a guest that
//! exits only on request.
#![cfg(feature = "demo")]

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::demo::vm::{Exit, Vm};

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::real_vms::qemu_works;
use crate::support::run::alone;
use crate::support::timer_guest::TimerGuest;

const EVENTS: &str = "kvm_vcpu_kvm_events_total";
const EXITS: &str = "kvm_vcpu_exits_total";

/// A guest in this process, on a thread that enters it only on request.
struct Counted {
    orders: Option<SyncSender<u32>>,
    done: Receiver<Exit>,
    thread: Option<JoinHandle<()>>,
}

impl Counted {
    fn start(load: Load) -> Self {
        let (orders, ordered) = mpsc::sync_channel::<u32>(0);
        let (tell, done) = mpsc::channel();
        let body = move || {
            let vm = Vm::create(load, 0).expect("KVM works");
            let mut vcpu = vm.create_vcpu(0).expect("KVM works");
            for times in ordered {
                for _ in 0..times {
                    // An exit by a signal or without a reason does not come from the guest.
                    let exit = vcpu.run().expect("the guest runs");
                    tell.send(exit).expect("the test listens");
                }
            }
        };
        let thread = thread::Builder::new().name("CPU 0/KVM".to_owned());
        Self {
            orders: Some(orders),
            done,
            thread: Some(thread.spawn(body).expect("a thread")),
        }
    }

    /// Enters the guest `times` times, and returns how often it exited by itself.
    fn run(&self, times: u32) -> u32 {
        let orders = self.orders.as_ref().expect("it runs");
        orders.send(times).expect("the guest thread runs");
        let exits = (0..times).map(|_| self.done.recv().expect("the guest thread runs"));
        let own = exits.filter(|exit| *exit != Exit::Interrupted);
        u32::try_from(own.count()).expect("as many as were wanted")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            if !thread::panicking() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// An exporter that counts tracepoints here; prints why not.
fn exporter(config: &str) -> Option<Exporter> {
    if !kvm_works() {
        return None;
    }
    let exporter = Exporter::with(&[], config);
    let seen = exporter.until(|e| {
        e.all("kvm_exporter_source_up", &[("source", "exits")])
            .count()
            > 0
    });
    let state = seen
        .all("kvm_exporter_source_up", &[("source", "exits")])
        .next();
    let reason = state
        .map(|s| s.label("reason").to_owned())
        .unwrap_or_default();
    if ["no_tracefs", "no_permission", "lockdown"].contains(&reason.as_str()) {
        println!("skipped: no tracepoints here: {reason}");
        return None;
    }
    Some(exporter)
}

/// The name that the exporter gives to the unnamed VM of this process.
fn own() -> String {
    format!("pid-{}", std::process::id())
}

fn sum(exposition: &Exposition, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    exposition.sum(metric, labels)
}

fn event(exposition: &Exposition, vm: &str, event: &str) -> f64 {
    sum(exposition, EVENTS, &[("vm", vm), ("event", event)]).unwrap_or(f64::NAN)
}

/// Starts a guest and waits until its events are counted; the guest is stopped afterwards.
fn watched(exporter: &Exporter, load: Load) -> Counted {
    let guest = Counted::start(load);
    guest.run(1);
    let vm = own();
    exporter.until(|e| e.all(EVENTS, &[("vm", &vm)]).count() > 0);
    guest
}

#[test]
fn port_writes_are_counted_to_the_last_one() {
    let _alone = alone();
    let Some(exporter) = exporter("") else {
        return;
    };
    let guest = watched(&exporter, Load::Io);
    let vm = own();
    let before = exporter.scrape_anew();
    for (round, times) in [1u32, 10, 1000, 54_321].into_iter().enumerate() {
        let before = if round == 0 {
            before.clone()
        } else {
            exporter.scrape_anew()
        };
        let own = guest.run(times);
        let after = exporter.scrape_anew();
        let counted = |name: &str| event(&after, &vm, name) - event(&before, &vm, name);
        assert_eq!(counted("userspace_exit"), f64::from(times), "round {round}");
        assert_eq!(counted("pio"), f64::from(own), "round {round}");
        assert_eq!(counted("mmio"), 0.0);
    }
}

#[test]
fn halts_are_exits_to_the_vmm_that_has_no_interrupt_controller_in_the_kernel() {
    let _alone = alone();
    let Some(exporter) = exporter("") else {
        return;
    };
    let guest = watched(&exporter, Load::Halt);
    let vm = own();
    let before = exporter.scrape_anew();
    guest.run(2500);
    let after = exporter.scrape_anew();
    let counted = |name: &str| event(&after, &vm, name) - event(&before, &vm, name);
    assert_eq!(counted("userspace_exit"), 2500.0);
    assert_eq!(counted("vcpu_wakeup"), 0.0);
    assert_eq!(counted("pio"), 0.0);
}

/// Each interrupt ends a halt, unless the guest was kept from halting until the next interrupt. A
/// stop ends a halt without an interrupt.
#[test]
fn wakeups_are_as_many_as_the_timer_interrupts_that_the_guest_itself_counted() {
    let _alone = alone();
    if !qemu_works() {
        return;
    }
    let Some(exporter) = exporter("") else {
        return;
    };
    let guest = TimerGuest::start();
    let vm = guest.name();
    exporter.until(|e| e.all(EVENTS, &[("vm", vm)]).count() > 0);
    let first = guest.stopped(|| exporter.scrape_anew());
    guest.wait(3000);
    let last = guest.stopped(|| exporter.scrape_anew());

    let (least, most) = (last.0 - first.2, last.2 - first.0);
    assert!(most - least <= 4, "it stands still: {first:?} {last:?}");
    let (least, most) = (f64::from(least), f64::from(most));
    let counted = |name: &str| event(&last.1, vm, name) - event(&first.1, vm, name);
    let (wakeups, writes) = (counted("vcpu_wakeup"), counted("pio"));
    println!("{least} to {most} interrupts: {wakeups} wakeups, {writes} port writes");
    assert!(
        least * 0.99 <= wakeups && wakeups <= most * 1.01,
        "{wakeups} wakeups by {least} to {most} interrupts"
    );
    // The guest can be stopped between its count and its write.
    assert!(
        least - 1.0 <= writes && writes <= most + 1.0,
        "{writes} port writes by {least} to {most} interrupts"
    );
    assert_eq!(counted("mmio"), 0.0);
}

/// The exporter started after the guest and missed a fixed number of exits. Each scrape between two
/// readings of the VMM's count bounds that number; all bounds must agree.
#[test]
fn the_vmms_own_counts_agree_at_every_scrape() {
    let _alone = alone();
    let Some(exporter) = exporter("") else {
        return;
    };
    for (load, name) in [(Load::Io, "exits-io"), (Load::Halt, "exits-halt")] {
        let mut vm = MicroVm::start(name, load, 1);
        let name = vm.name().to_owned();
        exporter.until(|e| e.all(EVENTS, &[("vm", &name)]).count() > 0);
        let (mut least, mut most) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut counted = Vec::new();
        for _ in 0..10 {
            let before = vm.vcpu_stats(0).1.exits as f64;
            let exits = event(&exporter.scrape_anew(), &name, "userspace_exit");
            let after = vm.vcpu_stats(0).1.exits as f64;
            least = least.max(before - exits);
            // The VMM increments its count after the kernel.
            most = most.min(after + 1.0 - exits);
            counted.push(exits);
        }
        assert!(
            least <= most,
            "{name}: missed at least {least} and at most {most}"
        );
        assert!(counted.windows(2).all(|w| w[0] <= w[1]), "{counted:?}");
        assert!(counted[9] > counted[0], "{name} never leaves: {counted:?}");
    }
}

/// The reason of a degraded source.
fn reason(exposition: &Exposition, source: &str) -> String {
    let labels = [("source", source)];
    let mut rows = exposition.all("kvm_exporter_source_up", &labels);
    let row = rows.next().expect("every source has a row");
    row.label("reason").to_owned()
}

#[test]
fn exits_for_a_reason_and_the_others_add_up() {
    let _alone = alone();
    let reasons = "sources: {exits: {reasons: [io, io_instruction, hlt]}}";
    let Some(exporter) = exporter(reasons) else {
        return;
    };
    let guest = watched(&exporter, Load::Io);
    let vm = own();
    let before = exporter.scrape_anew();
    let exits = |e: &Exposition, reason| sum(e, EXITS, &[("vm", &vm), ("reason", reason)]);
    if exits(&before, "other").is_none() {
        println!("skipped: no exits here: {}", reason(&before, "exits"));
        return;
    }
    let own = f64::from(guest.run(1000));
    let after = exporter.scrape_anew();
    let counted = |reason| exits(&after, reason).map(|n| n - exits(&before, reason).unwrap_or(0.0));
    let io = counted("io").or(counted("io_instruction"));
    assert_eq!(
        io,
        Some(own),
        "port writes by the name that this vendor has for them"
    );
    assert_eq!(counted("hlt"), Some(0.0));
    let all = |e| sum(e, EXITS, &[("vm", &vm)]).unwrap_or(f64::NAN);
    assert!(
        all(&after) - all(&before) >= own,
        "the whole holds its part"
    );
}

#[test]
fn a_reason_that_nobody_has_is_told_with_those_there_are() {
    let _alone = alone();
    let Some(exporter) = exporter("sources: {exits: {reasons: [coffee]}}") else {
        return;
    };
    let up = exporter.scrape();
    let row = up
        .all("kvm_exporter_source_up", &[("source", "exits")])
        .next();
    let reason = row.expect("it is listed").label("reason");
    assert!(
        ["unknown_reason", "no_exit_tracepoint", "no_kvm"].contains(&reason),
        "{reason}"
    );
}
