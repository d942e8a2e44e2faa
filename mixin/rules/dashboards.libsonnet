// Figures that only dashboards show: who shares a cache, NUMA balancing and allocations, CPU time of the host by mode, pressure,
// bandwidth, topdown, and the exporter's own cost.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),
  // Series of the exporter get the selector where they are named kvm_*; this one is not.
  local selector = if $._config.selector == '' then '' else '{%s}' % $._config.selector,

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.dashboards',
        rules: [
          // Cores' worth of time of each VM in each last-level cache.
          record('kvm_vm:time_by_llc:rate5m', |||
            sum without (package, core, numa_node) (
              kvm_vm:time_by_core:rate5m{core!=""}
                * on (%(core)s) group_left (llc)
                  topk by (%(core)s) (1, max by (%(core)s, llc) (last_over_time(kvm_host_cpu_info{online="true"}[5m])))
            )
          ||| % t),
          record('kvm_vm:numa_balancing:rate5m', 'rate(kvm_vm_numa_balancing_total[5m])'),
          record('kvm_host_node:allocations:rate5m', 'rate(kvm_host_numa_allocations_total[5m])'),
          record('kvm_host:cpu_time:rate5m', 'sum without (package, core, numa_node) (rate(kvm_host_core_seconds_total[5m]))'),
          record('kvm_vm:pressure:rate5m', 'rate(kvm_vm_pressure_seconds_total[5m])'),
          record('kvm_vm:memory_bandwidth:rate5m', 'rate(kvm_vm_memory_bandwidth_bytes_total[5m])'),
          record('kvm_vm:memory_bandwidth_remote:ratio', |||
            1 - sum without (llc) (rate(kvm_vm_memory_bandwidth_local_bytes_total[5m]))
              / (sum without (llc) (kvm_vm:memory_bandwidth:rate5m) > 0)
          |||),
          record('kvm_vm:topdown:ratio', |||
            sum without (vcpu, package, core, numa_node) (
              rate(kvm_vcpu_topdown_slots_total{mode="guest", category!="total"}[5m])
            )
              / ignoring (category) group_left () (
                sum without (vcpu, package, core, numa_node, category) (
                  rate(kvm_vcpu_topdown_slots_total{mode="guest", category="total"}[5m])
                ) > 0
              )
          |||),
          // Over an hour: machine checks are few, and one counts.
          record('kvm_host:kernel_log_lines:increase1h', 'increase(kvm_host_kernel_log_lines_total[1h])'),
          record('kvm_exporter:cpu:rate5m', |||
            rate(process_cpu_seconds_total%(selector)s[5m])
              and on (%(host)s) kvm_exporter_build_info
          ||| % (t { selector: selector })),
          record('kvm_exporter:tick_cpu:rate5m', 'rate(kvm_exporter_tick_cpu_seconds_total[5m])'),
          record('kvm_exporter:missed_ticks:rate5m', 'rate(kvm_exporter_missed_ticks_total[5m])'),
          record('kvm_exporter:read_errors:rate5m', 'rate(kvm_exporter_read_errors_total[5m])'),
          record('kvm_exporter:otlp_pushes:rate5m', 'rate(kvm_exporter_otlp_pushes_total[5m])'),
          record('kvm_exporter:otlp_data_points:rate5m', 'rate(kvm_exporter_otlp_data_points_total[5m])'),
        ],
      },
    ],
  },
}
