// Intel Processor Trace: of the recordings alone, which are short and a minute apart, so over a longer window.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.pt',
        rules: [
          record('kvm_vm:pt_cycles:rate15m', 'sum without (vcpu) (rate(kvm_vcpu_pt_cycles_total[15m]))'),
          record('kvm_vm:pt_traced:rate15m', 'sum without (vcpu) (rate(kvm_vcpu_pt_traced_seconds_total[15m]))'),
          record('kvm_vm:pt_branches_per_cycle:rate15m', |||
            sum without (vcpu, outcome) (rate(kvm_vcpu_pt_conditional_branches_total[15m]))
              / (kvm_vm:pt_cycles:rate15m > 0)
          |||),
          record('kvm_vm:pt_indirect_branches_per_cycle:rate15m', |||
            sum without (vcpu) (rate(kvm_vcpu_pt_indirect_branches_total[15m]))
              / (kvm_vm:pt_cycles:rate15m > 0)
          |||),
          record('kvm_vm:pt_exits_per_second:rate15m', |||
            sum without (vcpu, reason) (rate(kvm_vcpu_pt_exits_total[15m]))
              / (sum without (mode) (kvm_vm:pt_traced:rate15m) > 0)
          |||),
          record('kvm_vm:pt_traced_share:rate15m', |||
            kvm_vm:pt_traced:rate15m
              / ignoring (mode) group_left () (sum without (mode) (kvm_vm:pt_traced:rate15m) > 0)
          |||),
          record('kvm_vm:pt_guest_run_seconds:p50_rate15m', |||
            histogram_quantile(0.5, rate(kvm_vm_pt_guest_run_seconds_bucket[15m]))
              and rate(kvm_vm_pt_guest_run_seconds_count[15m]) > 0
          |||),
          record('kvm_vm:pt_guest_run_seconds:p99_rate15m', |||
            histogram_quantile(0.99, rate(kvm_vm_pt_guest_run_seconds_bucket[15m]))
              and rate(kvm_vm_pt_guest_run_seconds_count[15m]) > 0
          |||),
          record('kvm_vm:pt_host_handling_seconds:p50_rate15m', |||
            histogram_quantile(0.5, rate(kvm_vm_pt_host_handling_seconds_bucket[15m]))
              and rate(kvm_vm_pt_host_handling_seconds_count[15m]) > 0
          |||),
          record('kvm_vm:pt_host_handling_seconds:p99_rate15m', |||
            histogram_quantile(0.99, rate(kvm_vm_pt_host_handling_seconds_bucket[15m]))
              and rate(kvm_vm_pt_host_handling_seconds_count[15m]) > 0
          |||),
          // Overflows are counted, not the recordings that had one: each counts as a recording that lost data, up to all.
          record('kvm_vcpu:pt_lost_ratio:rate15m', |||
            clamp_max(
              (
                (
                  sum without (result) (rate(kvm_vcpu_pt_captures_total{result=~"truncated|partial|collision"}[15m]))
                    or 0 * sum without (result) (rate(kvm_vcpu_pt_captures_total[15m]))
                ) + (
                  rate(kvm_vcpu_pt_overflows_total[15m])
                    or 0 * sum without (result) (rate(kvm_vcpu_pt_captures_total[15m]))
                )
              )
                / (sum without (result) (rate(kvm_vcpu_pt_captures_total{result=~"complete|truncated|partial|collision"}[15m])) > 0),
              1
            )
          |||),
        ],
      },
    ],
  },
}
