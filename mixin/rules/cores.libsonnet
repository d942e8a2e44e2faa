// What a core gives: SMT siblings, frequency, heat.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.cores',
        rules: [
          // Of the time beyond one second a second, n threads of a core make at most n - 1 at once: for so long several of
          // them ran vCPUs, at least. All of it on a core is n times that in seconds of vCPUs, and each VM gets the share it
          // had of the core. n is 2 on most machines, 4 on ThunderX2 and Xeon Phi.
          record('kvm_host_core:smt_shared:rate5m', |||
            clamp_min(kvm_host_core:time:rate5m - 1, 0)
              / on (%(core)s) group_left () (max by (%(core)s) (kvm_host_core:threads:count) - 1 > 0)
          ||| % t),
          record('kvm_vm:smt_shared_ratio:rate5m', |||
            clamp_max(
              sum without (package, core, numa_node) (
                kvm_vm:time_by_core:rate5m{core!=""}
                  * on (%(core)s) group_left ()
                    max by (%(core)s) (
                      kvm_host_core:smt_shared:rate5m / (kvm_host_core:time:rate5m > 0)
                        * on (%(core)s) group_left () max by (%(core)s) (kvm_host_core:threads:count)
                    )
              ) / (kvm_vm:time:rate5m > 0),
              1
            )
          ||| % t),
          record('kvm_host_core:frequency:ratio', |||
            avg_over_time(kvm_host_core_frequency_hertz[5m])
              / (last_over_time(kvm_host_core_frequency_base_hertz[5m]) > 0)
          |||),
          record('kvm_vm:frequency_ratio:rate5m', |||
            sum without (package, core, numa_node) (
              kvm_vm:time_by_core:rate5m{core!=""}
                * on (%(core)s) group_left () max by (%(core)s) (kvm_host_core:frequency:ratio)
            ) / (
              sum without (package, core, numa_node) (
                kvm_vm:time_by_core:rate5m{core!=""} and on (%(core)s) kvm_host_core:frequency:ratio
              ) > 0
            )
          ||| % t),
          record('kvm_host_package:throttled_ratio:rate5m', 'rate(kvm_host_package_throttled_seconds_total[5m])'),
          record('kvm_vm:package_throttled_ratio:rate5m', |||
            sum without (package) (
              sum without (core, numa_node) (kvm_vm:time_by_core:rate5m{package!=""})
                * on (%(package)s) group_left () max by (%(package)s) (kvm_host_package:throttled_ratio:rate5m)
            ) / (kvm_vm:time:rate5m > 0)
          ||| % t),
        ],
      },
    ],
  },
}
