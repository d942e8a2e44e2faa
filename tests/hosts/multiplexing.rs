//! More events than the seven counters: each is counted part of the time and scaled.

use crate::instructions::{SPIN, TOLERANCE};
use crate::machine::{Clock, Machine};
use crate::sandwich::{assert_within, Span};

/// Instructions retired (Arm ARM, D13.12.3: event 0x08) under twelve names, two of them with cycles
/// and instructions of guest and host in the same group.
const SCRIPT: &str = r#"
start_exporter '
sampling: {tick: 100ms, inventory: 1s}
sources:
  pmu:
    raw:
      - {name: e1, event: r8}
      - {name: e2, event: r8}
      - {name: e3, event: armv8_pmuv3/inst_retired/}
      - {name: e4, event: armv8_pmuv3/event=0x8/}
      - {name: e5, event: r8}
      - {name: e6, event: r8}
      - {name: e7, event: r8}
      - {name: e8, event: r8}'
start_vm watched spin 1
scrape_until '^kvm_vcpu_pmu_event_total.vm="watched"' >/dev/null
sandwich watched first
sleep 6
sandwich watched last
"#;

#[test]
fn scaled_totals_are_true_and_say_that_they_are_scaled() {
    let console = Machine::arm64(Clock::Icount).run(SCRIPT);
    let span = Span::of(&console, "watched");
    let (least, most) = span.turns();
    let truth = (least * SPIN, most * SPIN);
    let guest = span.delta("kvm_vcpu_instructions_total", &[("mode", "guest")]);
    assert_within("guest instructions", guest, truth, TOLERANCE);
    for event in ["e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"] {
        let labels = [("event", event), ("mode", "guest")];
        let counted = span.delta("kvm_vcpu_pmu_event_total", &labels);
        assert_within(event, counted, truth, TOLERANCE);
    }
    let enabled = span.delta("kvm_vcpu_pmu_enabled_seconds_total", &[]);
    let running = span.delta("kvm_vcpu_pmu_running_seconds_total", &[]);
    println!("enabled {enabled}, running {running}");
    assert!(
        0.0 < running && running < 0.95 * enabled,
        "enabled {enabled}, running {running}"
    );
}
