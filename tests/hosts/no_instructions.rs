//! A PMU with cycles but without instructions, like many virtual ones.

use crate::machine::{Clock, Machine};
use crate::rules;

const SCRIPT: &str = r#"
start_exporter
start_vm watched spin 1
section scrape scrape_until '^kvm_vcpu_cycles_total.vm="watched".*mode="guest". [1-9]'
section check vcpu-exporter check
for n in 1 2 3; do
    section rules scrape_anew
    sleep 1
done
"#;

#[test]
fn what_is_there_is_counted_and_what_is_not_is_absent_with_a_reason() {
    let console = Machine::arm64(Clock::Free).run(SCRIPT);
    let scrape = console.scrape("scrape");
    for mode in ["guest", "host"] {
        let cycles = scrape.sum("kvm_vcpu_cycles_total", &[("mode", mode)]);
        assert!(cycles > Some(0.0), "{mode}: {cycles:?}");
    }
    // Absent instead of 0: a rule for cycles per instruction must not divide by it.
    let absent = scrape.all("kvm_vcpu_instructions_total", &[]).count();
    assert_eq!(absent, 0, "{}", scrape.text);
    let labels = [("source", "pmu"), ("reason", "event_not_supported")];
    let up = scrape.one("kvm_exporter_source_up", &labels);
    assert_eq!(up, Some(1.0), "it delivers, and says what not");
    let check = console.section("check");
    let missing = "kvm_vcpu_instructions_total in guest mode: this PMU lacks the event";
    assert!(check.contains(missing), "{check}");
    let ran = "count(sum by (mode) (rate(kvm_vcpu_cycles_total[5m])) > 0)";
    let scrapes = rules::scrapes(&console, "rules");
    let expected: [(_, &[_]); 3] = [
        (ran, &[("{}", 2.0)]),
        ("kvm_vcpu:cpi:rate5m", &[]),
        ("kvm_vm:cpi:rate5m", &[]),
    ];
    rules::hold(&scrapes, &expected);
}
