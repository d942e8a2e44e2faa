// Misses of the cache that kvm_vcpu_cache_misses_total counts: the last level on Intel.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.cache',
        rules: [
          record('kvm_vcpu:cache_misses:rate5m', 'sum without (package, core, numa_node) (rate(kvm_vcpu_cache_misses_total[5m]))'),
          record('kvm_vcpu:cache_mpki:rate5m', '1000 * kvm_vcpu:cache_misses:rate5m / (kvm_vcpu:instructions:rate5m > 0)'),
          record('kvm_vm:cache_mpki:rate5m', |||
            1000 * sum without (vcpu) (kvm_vcpu:cache_misses:rate5m)
              / (sum without (vcpu) (kvm_vcpu:instructions:rate5m) > 0)
          |||),
          // The VM's own usual misses: the quarter of an hour that may be the storm is left out.
          record('kvm_vm:cache_mpki_hour:avg', |||
            avg_over_time(kvm_vm:cache_mpki:rate5m{mode="guest"}[1h] offset 15m)
              and kvm_vm:cache_mpki:rate5m
          |||),
          // By the node of the vCPU: memory of that node serves local loads, memory of another node the remote ones.
          record('kvm_vm:dram_loads_by_node:rate5m', |||
            sum without (vcpu, package, core, mode) (rate(kvm_vcpu_dram_loads_total{mode="guest"}[5m]))
          |||),
          record('kvm_vm:dram_loads:rate5m', 'sum without (numa_node, target) (kvm_vm:dram_loads_by_node:rate5m)'),
          record('kvm_vm:dram_loads_remote_ratio:rate5m', |||
            sum without (numa_node, target) (kvm_vm:dram_loads_by_node:rate5m{target="remote"})
              / (kvm_vm:dram_loads:rate5m > 0)
          |||),
        ],
      },
    ],
  },
}
