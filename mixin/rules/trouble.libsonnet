// How bad each possible cause of a slow VM is: what was observed over the threshold of the alert (alerts.yaml has them
// in a table), under the alert's own conditions. Absent where it is not known, or the VM too idle to tell.
local lib = import '../lib/rules.libsonnet';
local score(cause, expr) = lib.record('kvm_vm:trouble:score', expr, { cause: cause });

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.trouble',
        rules: [
          score('delay', 'kvm_vm:contention_ratio_of_worst_vcpu:rate5m / %(delay)s' % t),
          score('starved', |||
            max without (vcpu) (
              kvm_vcpu:contention_ratio:rate5m
                / clamp_min(%(starved_over_siblings)s * kvm_vcpu:delay_ratio_siblings:rate5m, %(starved)s)
                and kvm_vcpu:demand:rate5m >= %(vcpu_wanted_cores)s
            )
          ||| % t),
          score('quota', |||
            kvm_vm:quota_wait_ratio:rate5m / %(quota_wait)s
              and kvm_vm:time:rate5m + kvm_vm:delay:rate5m >= %(vm_busy_cores)s
          ||| % t),
          score('memory_remote', |||
            kvm_vm:memory_remote:ratio
              / clamp_min(kvm_vm:memory_remote_spread:ratio + %(memory_remote_over_spread)s, %(memory_remote)s)
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
          score('device_remote', |||
            max without (device, class, numa_node) (kvm_vm:device_remote:ratio)
              / clamp_min(kvm_vm:memory_remote_spread:ratio + %(memory_remote_over_spread)s, %(device_remote)s)
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
          score('cpi_week', 'kvm_vm:cpi_busy:rate5m / (kvm_vm:cpi_week:limit > 0)'),
          score('cpi_peers', |||
            kvm_vm:cpi_busy:rate5m / (kvm_vm:cpi_peers:limit > 0)
              unless on (%(vm)s) kvm_vm:peers:info{peers_by="flavor"}
          ||| % t),
          score('cache', |||
            sum without (mode) (
              kvm_vm:cache_mpki:rate5m
                / clamp_min(%(cache_over_usual)s * kvm_vm:cache_mpki_hour:avg, %(cache_mpki)s)
            )
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
          score('smt', |||
            kvm_vm:smt_shared_ratio:rate5m / %(smt_shared)s
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
              and on (%(vm)s) kvm_vm:idle_cores_near:rate5m >= kvm_vm:smt_shared_ratio:rate5m * kvm_vm:time:rate5m
          ||| % t),
          score('throttling', |||
            kvm_vm:package_throttled_ratio:rate5m / %(package_throttled)s
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
          score('exits', |||
            kvm_vm:exits_per_cpu_second:rate5m / %(exits_per_cpu_second)s
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
        ],
      },
    ],
  },
}
