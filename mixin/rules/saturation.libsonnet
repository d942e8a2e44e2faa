// Whether the host as a whole has enough CPUs.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.saturation',
        rules: [
          record('kvm_host:contention:rate5m', |||
            sum without (vm) (kvm_vm:contention:rate5m)
              or sum without (package, core, numa_node) (kvm_host_core:contention:rate5m)
          |||),
          record('kvm_host:contention_ratio:rate5m', |||
            kvm_host:contention:rate5m
              / (sum without (vm) (kvm_vm:time:rate5m) + kvm_host:contention:rate5m > 0)
          |||),
          record('kvm_host:busy_cpus:rate5m', 'sum without (package, core, numa_node) (kvm_host_core:busy:rate5m)'),
          // What runs, and what waits for others: vCPUs, and the VMs' other threads where they are watched.
          record('kvm_host:cpu_demand:cpus', |||
            kvm_host:busy_cpus:rate5m
              + (kvm_host:contention:rate5m or 0 * kvm_host:busy_cpus:rate5m)
              + (
                sum without (vm, role, package, core, numa_node) (rate(kvm_vm_thread_delay_seconds_total{role!="vcpu"}[5m]))
                  or 0 * kvm_host:busy_cpus:rate5m
              )
          |||),
          record('kvm_host:idle_cpus:rate5m', 'sum without (package, core, numa_node) (kvm_host_core:idle_cpus:rate5m)'),
          // All CPUs are busy or idle. Both rates are low alike after a restart of the exporter, which the number of CPUs is not.
          record('kvm_host:cpu_demand:ratio', 'kvm_host:cpu_demand:cpus / (kvm_host:busy_cpus:rate5m + kvm_host:idle_cpus:rate5m > 0)'),
          // More demand than CPUs is a wait that no placement of vCPUs avoids. The rule reads its own last value: demand that
          // swings around the number of CPUs is one state.
          record('kvm_host:cpu_full:bool', |||
            clamp_max(
              (kvm_host:cpu_demand:ratio > bool %(host_demand)s)
                + (kvm_host:cpu_demand:ratio > bool %(host_demand_clear)s)
                  * (kvm_host:cpu_full:bool or 0 * kvm_host:cpu_demand:ratio),
              1
            )
          ||| % t),
          // Most of five minutes, so that one rate of a burst is no alert. Alerts about VMs are suppressed as soon as the host is full.
          record('kvm_host:cpu_saturated:bool', 'avg_over_time(kvm_host:cpu_full:bool[5m]) >= bool 0.5'),
          record('kvm_host:cpu_saturated_critical:bool', |||
            kvm_host:cpu_saturated:bool
              * clamp_max(
                (kvm_host:contention_ratio:rate5m > bool %(host_delay_critical)s)
                  + (kvm_host:contention_ratio:rate5m > bool %(host_delay_clear)s)
                    * (kvm_host:cpu_saturated_critical:bool or 0 * kvm_host:contention_ratio:rate5m),
                1
              )
          ||| % t),
        ],
      },
    ],
  },
}
