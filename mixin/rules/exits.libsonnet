// What vCPUs leave the guest for.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.exits',
        rules: [
          record('kvm_vcpu:exits:rate5m', 'sum without (package, core, numa_node, reason) (rate(kvm_vcpu_exits_total[5m]))'),
          record('kvm_vm:exits:rate5m', 'sum without (vcpu, package, core, numa_node) (rate(kvm_vcpu_exits_total[5m]))'),
          record('kvm_vm:exits_per_cpu_second:rate5m', 'sum without (reason) (kvm_vm:exits:rate5m) / (kvm_vm:time:rate5m > 0)'),
        ],
      },
    ],
  },
}
