//! CPU time of vhost's workers, which are kernel threads on Linux 6.1 and threads of the VMM since
//! 6.4.

use crate::machine::{Console, Machine};

/// The exporter starts before the VM, so that it knows all of the worker's time. `at_rest` is the
/// kernel's figure of an idle worker, once two readings are equal.
const SCRIPT: &str = r#"
start_exporter "{sampling: {tick: 100ms, inventory: 1s}, sources: {threads: {period: 1s}}}"
mkfifo /tmp/vhost.in /tmp/vhost.out
vhost-vm 0<>/tmp/vhost.in 1<>/tmp/vhost.out &
vm=$!
read -r ready </tmp/vhost.out
scrape_until "^kvm_vm_info.vm=\"pid-$vm\"" >/dev/null
worker() {
    for dir in /proc/[0-9]* /proc/$vm/task/*; do
        [ "$(cat $dir/comm)" != "vhost-$vm" ] || echo $dir
    done
}
dir=$(worker)
section worker echo $dir
section vm echo pid-$vm
for kicks in 1 2 3; do
    echo >/tmp/vhost.in
    read -r kicked </tmp/vhost.out
done
until before=$(cat $dir/schedstat); usleep 500000; [ "$before" = "$(cat $dir/schedstat)" ]; do :; done
section schedstat cat $dir/schedstat
# Three periods of the source: it has read the worker at rest.
sleep 3
section rest scrape
section after cat $dir/schedstat
"#;

/// Seconds on a core and waiting, of the worker and in the scrape.
fn check(console: &Console) {
    let kernel = |name: &str| -> Vec<f64> {
        let words = console.section(name).split_whitespace();
        words
            .map(|word| word.parse::<f64>().expect("a number") / 1e9)
            .collect()
    };
    let (truth, after) = (kernel("schedstat"), kernel("after"));
    assert_eq!(truth, after, "it was at rest");
    let vm = console.section("vm").trim();
    let rest = console.scrape("rest");
    let of = |metric: &str| -> f64 {
        let labels = [("vm", vm), ("role", "vhost")];
        let found = rest.all(metric, &labels);
        found.map(|series| series.value).sum()
    };
    let told = [
        of("kvm_vm_thread_time_seconds_total"),
        of("kvm_vm_thread_delay_seconds_total"),
    ];
    println!(
        "{}: told {told:?}, the kernel {truth:?}",
        console.section("worker").trim()
    );
    assert!(truth[0] > 0.0, "it had something to do");
    for (told, truth) in told.iter().zip(&truth) {
        assert!((told - truth).abs() < 1e-6, "{told} is not {truth}");
    }
}

#[test]
fn a_vhost_worker_of_the_kernel_is_the_vms_on_linux_6_1() {
    let console = Machine::amd64().run(SCRIPT);
    assert!(!console.section("worker").contains("/task/"));
    check(&console);
}

#[test]
fn a_vhost_worker_in_the_vmm_is_the_vms_on_linux_6_12() {
    let console = Machine::amd64_6_12().run(SCRIPT);
    assert!(console.section("worker").contains("/task/"));
    check(&console);
}
