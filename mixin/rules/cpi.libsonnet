// Cycles per instruction, guest and host apart (label mode): of each vCPU, and of each VM.
//
// Both sides are sums over the places a vCPU ran at, never averages of ratios. A PMU that lacks
// instructions gives no series, and neither does a vCPU that retired none: x/0 is not a ratio.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.cpi',
        rules: [
          record('kvm_vcpu:instructions:rate5m', 'sum without (package, core, numa_node) (rate(kvm_vcpu_instructions_total[5m]))'),
          record('kvm_vcpu:cpi:rate5m', |||
            sum without (package, core, numa_node) (rate(kvm_vcpu_cycles_total[5m]))
              / (kvm_vcpu:instructions:rate5m > 0)
          |||),
          record('kvm_vm:cpi:rate5m', |||
            sum without (vcpu, package, core, numa_node) (rate(kvm_vcpu_cycles_total[5m]))
              / (sum without (vcpu) (kvm_vcpu:instructions:rate5m) > 0)
          |||),
        ],
      },
    ],
  },
}
