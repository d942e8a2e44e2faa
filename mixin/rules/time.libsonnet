// Time on cores and time spent waiting for one: of vCPUs, VMs and the other threads of VMs.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.time',
        rules: [
          record('kvm_vcpu:time:rate5m', 'sum without (package, core, numa_node) (rate(kvm_vcpu_time_seconds_total[5m]))'),
          record('kvm_vcpu:delay:rate5m', 'sum without (package, core, numa_node) (rate(kvm_vcpu_delay_seconds_total[5m]))'),
          record('kvm_vcpu:demand:rate5m', 'kvm_vcpu:time:rate5m + kvm_vcpu:delay:rate5m'),
          record('kvm_vcpu:delay_ratio:rate5m', 'kvm_vcpu:delay:rate5m / (kvm_vcpu:demand:rate5m > 0)'),
          record('kvm_vm:time:rate5m', 'sum without (vcpu) (kvm_vcpu:time:rate5m)'),
          record('kvm_vm:delay:rate5m', 'sum without (vcpu) (kvm_vcpu:delay:rate5m)'),
          record('kvm_vm:delay_ratio:rate5m', 'kvm_vm:delay:rate5m / (kvm_vm:time:rate5m + kvm_vm:delay:rate5m > 0)'),
          // Of the other vCPUs of the same VM together, where they wanted a hundredth of a core at least.
          record('kvm_vcpu:delay_ratio_siblings:rate5m', |||
            clamp_min(-1 * kvm_vcpu:delay:rate5m + ignoring (vcpu) group_left () kvm_vm:delay:rate5m, 0)
              / (-1 * kvm_vcpu:demand:rate5m + ignoring (vcpu) group_left () (kvm_vm:time:rate5m + kvm_vm:delay:rate5m) > %(siblings_wanted_cores)s)
          ||| % t),
          record('kvm_vm:thread_time:rate5m', 'sum without (package, core, numa_node) (rate(kvm_vm_thread_time_seconds_total[5m]))'),
          record('kvm_vm:thread_delay_ratio:rate5m', |||
            sum without (package, core, numa_node) (rate(kvm_vm_thread_delay_seconds_total[5m]))
              / (kvm_vm:thread_time:rate5m + sum without (package, core, numa_node) (rate(kvm_vm_thread_delay_seconds_total[5m])) > 0)
          |||),
          record('kvm_vcpu:migrations:rate5m', 'rate(kvm_vcpu_migrations_total[5m])'),
          record('kvm_vm:numa_moves:rate5m', 'sum without (vcpu, crossed) (rate(kvm_vcpu_moves_total{crossed="numa_node"}[5m]))'),
        ],
      },
    ],
  },
}
