//! A hundred VMs that start and exit leave no open descriptor.

use crate::exposition::Exposition;
use crate::machine::{Clock, Machine};

/// Each vCPU has its counters, on a machine with a PMU.
const SCRIPT: &str = r#"
watched() {
    [ "$(scrape | grep -c '^kvm_vcpu_pmu_enabled_seconds_total.vm="churn-')" -eq 20 ]
}
forgotten() {
    ! scrape | grep -q 'vm="churn-'
}
within_a_minute() {
    for try in $(seq 300); do
        if "$1"; then return; fi
        usleep 200000
    done
    echo "not $1" >&2
    return 1
}
start_exporter
for round in 1 2 3 4 5; do
    for n in $(seq 20); do
        vcpu-exporter micro-vm --name "churn-$n" --load halt &
        echo $! >>/tmp/churn
    done
    within_a_minute watched
    section busy ls /proc/$exporter/fd
    kill $(cat /tmp/churn)
    rm /tmp/churn
    within_a_minute forgotten
    section quiet ls /proc/$exporter/fd
    sleep 2
    section told scrape
done
"#;

#[test]
fn descriptors_are_given_back() {
    let console = Machine::arm64(Clock::Icount).run(SCRIPT);
    let count = |name| -> Vec<usize> {
        let sections = console.sections(name);
        sections.map(|s| s.split_whitespace().count()).collect()
    };
    let (busy, quiet) = (count("busy"), count("quiet"));
    println!("descriptors with 20 VMs: {busy:?}, without: {quiet:?}");
    assert_eq!(quiet.len(), 5);
    // Counters were open; otherwise there was nothing to close.
    assert!(busy.iter().all(|n| *n > quiet[0] + 20 * 4));
    assert!(quiet.iter().all(|n| *n <= quiet[0]));
    assert!(busy.iter().all(|n| *n <= busy[0]));
    for scrape in console.sections("told").map(Exposition::parse) {
        // A scrape that runs at that time adds one.
        let told = scrape.one("process_open_fds", &[]);
        println!("told: {told:?}");
        assert!(
            told.is_some_and(|n| (n - quiet[0] as f64).abs() <= 1.0),
            "{told:?}"
        );
    }
}
