// How far what was counted can be trusted.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.quality',
        rules: [
          record('kvm_vcpu:pmu_running_ratio:rate5m', |||
            rate(kvm_vcpu_pmu_running_seconds_total[5m])
              / (rate(kvm_vcpu_pmu_enabled_seconds_total[5m]) > 0)
          |||),
          record('kvm_host:pmu_running_ratio:rate5m', |||
            sum without (vm, vcpu, group) (rate(kvm_vcpu_pmu_running_seconds_total[5m]))
              / (sum without (vm, vcpu, group) (rate(kvm_vcpu_pmu_enabled_seconds_total[5m])) > 0)
          |||),

          // What was an exporter within `absentWindow` and is silent now, and a target that never answered. One series a host,
          // for counting: no label but those of the host.
          record('kvm_exporter:lost:bool', |||
            max by (%(host)s) (0 * present_over_time(kvm_exporter_build_info[5m]))
              unless on (%(host)s) %(up)s == 0
            or on (%(host)s)
            max by (%(host)s) (present_over_time(kvm_exporter_build_info[%(absent)s]))
            or on (%(host)s)
            max by (%(host)s) (1 + (%(up_of_job)s == 0))
          ||| % (t { absent: $._config.absentWindow })),
        ],
      },
    ],
  },
}
