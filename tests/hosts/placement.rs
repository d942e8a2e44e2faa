//! A vCPU that moves between NUMA nodes.

use vcpu_exporter::demo::protocol::Stats;

use crate::exposition::Exposition;
use crate::machine::{Clock, Console, Machine};
use crate::sandwich::Span;

/// Seconds of a tick plus its delay on an emulated machine, during which a moved vCPU is still
/// charged to the old location or already to the new one.
const TICK: f64 = 0.2;

/// CPUs 2 and 3 are node 1. The kernel's own count of migrations is read from the thread.
const SCRIPT: &str = r#"
migrations() {
    awk '/nr_migrations/ { print $NF }' "/proc/$(cat /tmp/watched.pid)/task/$tid/sched"
}
start_vm watched spin 1
tid=$(echo "$ready" | sed 's/.*"tid":\([0-9]*\).*/\1/')
ask watched pin 0 2 >/dev/null
start_exporter
scrape_until '^kvm_vcpu_placement_info.vm="watched".*cpu="2"' >/dev/null
section migrations migrations
sandwich watched first
sleep 1
section leaving ask watched stats
ask watched pin 0 0 >/dev/null
section arriving ask watched stats
scrape_until '^kvm_vcpu_placement_info.vm="watched".*cpu="0"' >/dev/null
sleep 1
sandwich watched last
section migrations migrations
"#;

fn placement(scrape: &Exposition) -> [&str; 3] {
    let mut all = scrape.all("kvm_vcpu_placement_info", &[("vm", "watched")]);
    let placement = all.next().expect("the vCPU is somewhere");
    ["cpu", "package", "numa_node"].map(|label| placement.label(label))
}

fn cpu_time(stats: &Stats) -> f64 {
    stats.vcpus[0].cpu_ns as f64 / 1e9
}

/// Compares seconds charged to a node with those of the thread's own clock.
fn check_time(what: &str, charged: f64, truth: (f64, f64), slack: f64) {
    let (least, most) = truth;
    println!("{what}: {charged} s, truth {least} to {most}");
    assert!(
        least - slack <= charged && charged <= most + slack,
        "{what}"
    );
}

fn check(console: &Console) {
    let (there, here) = (console.scrape("first"), console.scrape("last"));
    assert_eq!(placement(&there), ["2", "1", "1"]);
    assert_eq!(placement(&here), ["0", "0", "0"]);

    let span = Span::of(console, "watched");
    let time = |node| {
        let time = |scrape: &Exposition| {
            let labels = [("vm", "watched"), ("numa_node", node)];
            let time = scrape.sum("kvm_vcpu_time_seconds_total", &labels);
            time.unwrap_or(0.0)
        };
        time(&here) - time(&there)
    };
    let at = |name: &str| cpu_time(&console.stats(name));
    let node1 = (
        at("leaving") - at("first.after"),
        at("arriving") - at("first.before"),
    );
    check_time("node 1", time("1"), node1, TICK);
    let node0 = (
        at("last.before") - at("arriving"),
        at("last.after") - at("leaving"),
    );
    check_time("node 0", time("0"), node0, TICK);
    check_time("both", time("0") + time("1"), span.cpu_seconds(), 0.01);

    let crossed = ["cpu", "core", "package", "numa_node"];
    let moved = crossed.map(|crossed| span.delta("kvm_vcpu_moves_total", &[("crossed", crossed)]));
    assert_eq!(moved, [0.0, 0.0, 0.0, 1.0]);
    let truth: Vec<f64> = console
        .sections("migrations")
        .map(|count| count.trim().parse().expect("a count"))
        .collect();
    let migrations = span.delta("kvm_vcpu_migrations_total", &[]);
    println!("migrations: {migrations}, truth {truth:?}");
    assert_eq!(migrations, truth[1] - truth[0]);
    for (cpu, node) in [("0", "0"), ("1", "0"), ("2", "1"), ("3", "1")] {
        let labels = [
            ("cpu", cpu),
            ("package", node),
            ("numa_node", node),
            ("online", "true"),
        ];
        assert_eq!(
            here.one("kvm_host_cpu_info", &labels),
            Some(1.0),
            "{labels:?}"
        );
    }
    let affinity = |metric| here.one(metric, &[("vm", "watched")]);
    assert_eq!(affinity("kvm_vcpu_affinity_cpus"), Some(1.0));
    assert_eq!(affinity("kvm_vcpu_affinity_numa_nodes"), Some(1.0));
}

#[test]
fn time_is_charged_to_the_node_it_was_spent_on_arm64() {
    check(&Machine::arm64(Clock::Free).run(SCRIPT));
}

#[test]
fn time_is_charged_to_the_node_it_was_spent_on_amd64() {
    // Without a PMU there are the kernel's own events. Counters can open a second after the vCPU
    // is seen.
    let counted = "scrape_until '^kvm_vcpu_software_event_total.vm=\"watched\"' >/dev/null\n";
    let script = SCRIPT.replacen("section", &format!("{counted}section"), 1);
    let console = Machine::amd64().run(&script);
    check(&console);
    let mode = [("mode", "software")];
    let mode = console.scrape("last").sum("kvm_exporter_pmu_mode", &mode);
    assert_eq!(mode, Some(1.0));
    let span = Span::of(&console, "watched");
    let event = [("event", "cpu-migrations")];
    let migrations = span.delta("kvm_vcpu_software_event_total", &event);
    assert_eq!(migrations, 1.0);
}
