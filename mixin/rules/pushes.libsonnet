// VMs that take what others wait for: the suspects when a VM has trouble. Only VMs that share the core or the cache with it,
// and never the VM itself.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.pushes',
        rules: [
          // How much others wait for what the VM uses: on each core, their wait times the VM's share of what runs there. In
          // CPUs, over a threshold.
          record('kvm_vm:pushes:score', |||
            sum without (package, core, numa_node) (
              kvm_vm:time_by_core:rate5m{core!=""}
                * (
                  -1 * (kvm_vm:contention_by_core:rate5m or 0 * kvm_vm:time_by_core:rate5m{core!=""})
                    + ignoring (vm) group_left () kvm_host_core:contention:rate5m
                )
                / ignoring (vm) group_left () (kvm_host_core:busy:rate5m > 0)
            ) / %(pushed_cores)s
          ||| % t, { resource: 'cpu' }),
          // Misses of the caches that the VM shares with others.
          record('kvm_vm:cache_misses_by_llc:rate5m', |||
            sum without (package, core, numa_node, mode) (
              sum without (vcpu) (rate(kvm_vcpu_cache_misses_total{mode="guest", core!=""}[5m]))
                * on (%(core)s) group_left (llc)
                  topk by (%(core)s) (1, last_over_time(kvm_host_cpu_info{online="true", llc!=""}[5m]))
            )
          ||| % t),
          record('kvm_vm:cache_storm_by_llc:score', |||
            0 * kvm_vm:cache_misses_by_llc:rate5m
              + ignoring (llc) group_left ()
                sum without (cause) (kvm_vm:trouble:score{cause="cache"} >= 1)
          |||),
          // The same of caches: the scores of others with a storm of misses, times the VM's share of all misses.
          record('kvm_vm:pushes:score', |||
            sum without (llc) (
              kvm_vm:cache_misses_by_llc:rate5m
                * (
                  -1 * (kvm_vm:cache_storm_by_llc:score or 0 * kvm_vm:cache_misses_by_llc:rate5m)
                    + ignoring (vm) group_left () (
                      sum without (vm) (kvm_vm:cache_storm_by_llc:score)
                        or 0 * sum without (vm) (kvm_vm:cache_misses_by_llc:rate5m)
                    )
                )
                / ignoring (vm) group_left () (sum without (vm) (kvm_vm:cache_misses_by_llc:rate5m) > 0)
            )
          |||, { resource: 'cache' }),
        ],
      },
    ],
  },
}
