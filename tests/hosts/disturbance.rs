//! Overhead of the exporter for a guest: CPU time of its thread per turn of its loop, which equals
//! instructions on this machine, with and without the exporter's counters.

use crate::machine::{Clock, Console, Machine};

/// The exporter shares the guest's only CPU, so that switches between them are included.
const SCRIPT: &str = r#"
start_vm watched spin 1
measure() {
    section "$1" ask watched stats
    sleep 10
    section "$1" ask watched stats
}
sleep 1
measure alone
for tick in 1s 100ms; do
    start_exporter "sampling: {tick: $tick, inventory: 1s}"
    scrape_until '^kvm_vcpu_instructions_total.vm="watched".*mode="guest"' >/dev/null
    measure "$tick"
    stop_exporter
done
measure again
"#;

/// Instructions of the vCPU's thread per turn of the guest.
fn cost(console: &Console, name: &str) -> f64 {
    let stats = console.all_stats(name);
    let spent = |n: usize| stats[n].vcpus[0];
    let time = spent(1).cpu_ns - spent(0).cpu_ns;
    let turns = spent(1).turns - spent(0).turns;
    time as f64 / 4.0 / f64::from(turns)
}

/// Tolerated relative difference between two measurements of the same state.
const STEADY: f64 = 0.001;

/// Boots until one shows the machine as steady at its end as at its start; results of an unsteady
/// one are not the exporter's.
const BOOTS: usize = 3;

/// Cost without the exporter, at a tick of 1 s and of 100 ms, and without it again.
fn measure() -> [f64; 4] {
    let console = Machine::arm64(Clock::Icount).run(SCRIPT);
    let [alone, second, tenth, again] =
        ["alone", "1s", "100ms", "again"].map(|n| cost(&console, n));
    println!("instructions a turn: alone {alone:.0}, tick 1 s {second:.0} ({:+.4} %), tick 100 ms {tenth:.0} ({:+.4} %), again alone {again:.0}",
        (second / alone - 1.0) * 100.0, (tenth / alone - 1.0) * 100.0);
    [alone, second, tenth, again]
}

#[test]
fn a_watched_guest_is_hardly_disturbed() {
    let is_steady = |[alone, _, _, again]: &[f64; 4]| (again / alone - 1.0).abs() < STEADY;
    let measured = (0..BOOTS).map(|_| measure()).find(is_steady);
    let [alone, second, tenth, _] = measured.expect("a machine that is steady");
    assert!(second / alone < 1.002);
    assert!(tenth / alone < 1.02);
}
