//! CPU quotas of cgroup v2, which this machine may not have.

use crate::exposition::Exposition;
use crate::machine::{Console, Machine};
use crate::sandwich::Span;

/// Two guests: one in a group with a quota of a fifth of a core, and one whose vCPUs have groups
/// with a twentieth each, in a group with a whole core. `at_rest` waits until the kernel counts no
/// more and the exporter has read everything.
const SCRIPT: &str = r#"
top=/sys/fs/cgroup
echo +cpu +cpuset >$top/cgroup.subtree_control
mkdir -p $top/qemu.slice/100.scope $top/machine/emulator $top/machine/vcpu0 $top/machine/vcpu1
echo +cpu >$top/qemu.slice/cgroup.subtree_control
echo +cpu >$top/machine/cgroup.subtree_control
for group in emulator vcpu0 vcpu1; do echo threaded >$top/machine/$group/cgroup.type; done
echo "4000 20000" >$top/qemu.slice/100.scope/cpu.max
echo 250 >$top/qemu.slice/100.scope/cpu.weight
echo "20000 20000" >$top/machine/cpu.max
for vcpu in vcpu0 vcpu1; do echo "1000 20000" >$top/machine/$vcpu/cpu.max; done

start_vm limited spin 1
cat /tmp/limited.pid >$top/qemu.slice/100.scope/cgroup.procs
start_vm split spin 2
tids=$(echo "$ready" | sed 's/[^}]*"tid":\([0-9]*\)[^}]*/\1 /g; s/[^0-9 ]//g')
cat /tmp/split.pid >$top/machine/cgroup.procs
cat /tmp/split.pid >$top/machine/emulator/cgroup.threads
n=0
for tid in $tids; do
    echo "$tid" >$top/machine/vcpu$n/cgroup.threads
    n=$((n + 1))
done

start_exporter "{sampling: {tick: 100ms, inventory: 1s}, sources: {cgroup: {period: 1s}}}"
scrape_until '^kvm_vm_cpu_throttled_periods_total.vm="split",level="vcpu". [1-9]' >/dev/null
# For each vCPU of the second guest its wait (ns) and the throttled time of its group (µs). The kernel counts a wait when
# the vCPU runs again, after the group is released: waits_first reads the wait before the throttled time, and waits_last
# reads it after the vCPU has run again, so that no throttled time between the two lacks its wait.
delay() {
    read -r _ ns _ <"/proc/$(cat /tmp/split.pid)/task/$1/schedstat"
    echo "$ns"
}
throttled() {
    sed -n 's/^throttled_usec //p' $top/machine/$1/cpu.stat
}
waits_first() {
    n=0
    for tid in $tids; do
        echo "$(delay $tid) $(throttled vcpu$n)"
        n=$((n + 1))
    done
}
waits_last() {
    n=0
    for tid in $tids; do
        us=$(throttled vcpu$n)
        before=$(delay $tid)
        until ns=$(delay $tid); [ $ns != $before ]; do :; done
        echo "$ns $us"
        n=$((n + 1))
    done
}
section waits.first waits_first
sandwich limited first
sleep 4
sandwich limited last
section waits.last waits_last

stats() {
    cat $top/qemu.slice/100.scope/cpu.stat $top/machine/vcpu0/cpu.stat $top/machine/vcpu1/cpu.stat
}
kill -STOP "$(cat /tmp/limited.pid)" "$(cat /tmp/split.pid)"
until before=$(stats); sleep 1; [ "$before" = "$(stats)" ]; do :; done
section limited cat $top/qemu.slice/100.scope/cpu.stat
section vcpu0 cat $top/machine/vcpu0/cpu.stat
section vcpu1 cat $top/machine/vcpu1/cpu.stat
section pressure cat $top/qemu.slice/100.scope/cpu.pressure
total=$(sed -n 's/^nr_periods //p' $top/qemu.slice/100.scope/cpu.stat)
scrape_until '^kvm_vm_cpu_periods_total.vm="limited",level="vm". '"$total"'$' >/dev/null
# One more period of the background collector: both VMs have been read since.
sleep 3
section rest scrape
"#;

/// Period of the quotas, seconds.
const PERIOD: f64 = 0.02;

/// Periods, throttled periods and throttled seconds in a `cpu.stat`.
fn kernel(text: &str) -> [f64; 3] {
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let seconds = field("throttled_usec ") / 1e6;
    [field("nr_periods "), field("nr_throttled "), seconds]
}

fn told(scrape: &Exposition, vm: &str, level: &str) -> [f64; 3] {
    let one = |name: &str| {
        let value = scrape.one(name, &[("vm", vm), ("level", level)]);
        value.unwrap_or_else(|| panic!("no {name} of {vm} in:\n{}", scrape.text))
    };
    [
        one("kvm_vm_cpu_periods_total"),
        one("kvm_vm_cpu_throttled_periods_total"),
        one("kvm_vm_cpu_throttled_seconds_total"),
    ]
}

fn quota(scrape: &Exposition, vm: &str) -> Option<(String, f64)> {
    let labels = [("vm", vm)];
    let mut all = scrape.all("kvm_vm_cpu_quota_cores", &labels);
    all.next().map(|s| (s.label("level").to_owned(), s.value))
}

/// Compares the cores that the guest used between the two sandwiches, by its own clocks, with its
/// quota. It was stopped during the scrapes, so it can use less, but not more, except for slices
/// taken in advance (kernel.sched_cfs_bandwidth_slice_us) and a late emulated timer.
fn check_quota_holds(console: &Console, quota: f64) {
    let span = Span::of(console, "limited");
    let (_, cpu) = span.cpu_seconds();
    let (seconds, _) = span.truth(|stats| stats.monotonic_ns as f64 / 1e9);
    println!("{cpu} s of CPU time in at least {seconds} s with a quota of {quota}");
    assert!(cpu > 0.0 && cpu <= quota * seconds * 1.1 + 0.04);
}

/// Seconds that each vCPU with its own group waited, and that its quota throttled the group.
fn waits(console: &Console, name: &str) -> Vec<[f64; 2]> {
    let lines = console.section(name).lines();
    let number = |word: &str| -> f64 { word.parse().expect("a number") };
    let pair = |line: &str| {
        let (delay, throttled) = line.split_once(' ').expect("two numbers");
        [number(delay) / 1e9, number(throttled) / 1e6]
    };
    lines.map(pair).collect()
}

/// Throttled time is part of a vCPU's delay: for the only thread of a group, which always wants to
/// run, it is at least the throttled time. Both are read while the vCPU runs: before 79462e8c879a
/// (v6.6) the kernel counts an empty group as throttled too, and a stopped vCPU leaves one.
fn check_waits(console: &Console) {
    let (first, last) = (waits(console, "waits.first"), waits(console, "waits.last"));
    for (first, last) in first.iter().zip(&last) {
        let [delay, throttled] = [last[0] - first[0], last[1] - first[1]];
        println!("waited {delay:.3} s, throttled {throttled:.3} s");
        assert!(throttled > 1.0, "it stood still");
        assert!(delay >= throttled - PERIOD, "{delay} {throttled}");
    }
}

#[test]
fn throttling_is_the_kernels_and_quotas_are_those_that_hold_on_linux_6_1() {
    check(&Machine::amd64().run(SCRIPT));
}

#[test]
fn throttling_is_the_kernels_and_quotas_are_those_that_hold_on_linux_6_12() {
    check(&Machine::amd64_6_12().run(SCRIPT));
}

fn check(console: &Console) {
    check_waits(console);
    let rest = console.scrape("rest");
    assert_eq!(quota(&rest, "limited"), Some(("vm".to_owned(), 0.2)));
    assert_eq!(quota(&rest, "split"), Some(("vcpu".to_owned(), 0.1)));
    check_quota_holds(console, 0.2);

    let limited = kernel(console.section("limited"));
    println!("limited: {limited:?}");
    assert!(limited[1] > 0.0, "it was throttled");
    assert_eq!(told(&rest, "limited", "vm"), limited);
    let vcpus = ["vcpu0", "vcpu1"].map(|vcpu| kernel(console.section(vcpu)));
    let of_split = told(&rest, "split", "vcpu");
    for (n, told) in of_split.iter().enumerate() {
        let sum = vcpus[0][n] + vcpus[1][n];
        assert!((told - sum).abs() < 1e-6, "{told} {sum}");
    }

    let weight = |vm| rest.one("kvm_vm_cpu_weight", &[("vm", vm)]);
    assert_eq!(
        (weight("limited"), weight("split")),
        (Some(250.0), Some(100.0))
    );
    let cpus = |vm| rest.one("kvm_vm_cpuset_cpus", &[("vm", vm)]);
    assert_eq!((cpus("limited"), cpus("split")), (Some(4.0), Some(4.0)));
    let some = [("vm", "limited"), ("resource", "cpu"), ("kind", "some")];
    let pressure = rest.one("kvm_vm_pressure_seconds_total", &some);
    let text = console.section("pressure");
    let first = text
        .lines()
        .next()
        .and_then(|line| line.rsplit_once("total="));
    let kernel: Option<f64> = first.and_then(|(_, total)| total.parse().ok());
    assert_eq!(pressure, kernel.map(|us| us / 1e6), "{text}");
}
