// CPU quotas: how often and for how long they stop a VM, and what is left of its wait without them.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.quota',
        rules: [
          record('kvm_vm:cpu_throttled_ratio:rate5m', |||
            rate(kvm_vm_cpu_throttled_periods_total[5m])
              / (rate(kvm_vm_cpu_periods_total[5m]) > 0)
          |||),
          // A vCPU that its quota stops counts as waiting (measured on Linux 6.1, 6.12 and 6.18). The kernel adds up
          // throttled time for each CPU on which the group has threads to run (unthrottle_cfs_rq in kernel/sched/fair.c), so
          // it is about the wait that the quota causes. What the quota does not explain is contention.
          record('kvm_vm:throttled:rate5m', 'sum without (level) (rate(kvm_vm_cpu_throttled_seconds_total[5m]))'),
          record('kvm_vm:contention:rate5m', 'clamp_min(kvm_vm:delay:rate5m - kvm_vm:throttled:rate5m, 0) or kvm_vm:delay:rate5m'),
          record('kvm_vm:quota_wait:rate5m', 'kvm_vm:delay:rate5m - kvm_vm:contention:rate5m and kvm_vm:throttled:rate5m'),
          record('kvm_vm:quota_wait_ratio:rate5m', 'kvm_vm:quota_wait:rate5m / (kvm_vm:time:rate5m + kvm_vm:delay:rate5m > 0)'),
          record('kvm_vm:contention_ratio:rate5m', 'kvm_vm:contention:rate5m / (kvm_vm:time:rate5m + kvm_vm:delay:rate5m > 0)'),
          // The kernel counts throttled time of groups, so each vCPU of a VM gets the VM's share.
          record('kvm_vcpu:contention_ratio:rate5m', |||
            kvm_vcpu:delay_ratio:rate5m
              * ignoring (vcpu) group_left () (kvm_vm:contention:rate5m / (kvm_vm:delay:rate5m > 0) or 0 * kvm_vm:delay:rate5m + 1)
          |||),
          // Of the vCPU that waits most, for alerts and a score.
          record('kvm_vm:contention_ratio_of_worst_vcpu:rate5m', |||
            max without (vcpu) (kvm_vcpu:contention_ratio:rate5m and kvm_vcpu:demand:rate5m >= %(vcpu_wanted_cores)s)
          ||| % t),
        ],
      },
    ],
  },
}
