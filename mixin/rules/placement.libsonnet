// Where vCPUs ran.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.placement',
        rules: [
          // Where the VM's vCPUs ran. labels.placement may keep the node alone, or nothing: then there is no series.
          record('kvm_vm:time_by_core:rate5m', 'sum without (vcpu) (rate(kvm_vcpu_time_seconds_total{numa_node!=""}[5m]))'),
          record('kvm_vm:time_by_node:rate5m', 'sum without (package, core) (kvm_vm:time_by_core:rate5m)'),
          record('kvm_vm:time_by_node:share', |||
            kvm_vm:time_by_node:rate5m
              / ignoring (numa_node) group_left () (sum without (numa_node) (kvm_vm:time_by_node:rate5m) > 0)
          |||),
        ],
      },
    ],
  },
}
