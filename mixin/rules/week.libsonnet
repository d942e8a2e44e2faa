// A VM's own past week. Hours are recorded as sums and the week is made of them: a query of a week reads 168 samples of each
// sum, where a query of the samples themselves would read 2,016 of each VM at one in five minutes.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local t = lib.names($._config),

  prometheusRules+:: {
    groups+: [
      // What a VM's CPI was in the last hour, at each minute it was busy: sums that can be added up. Only ranges read them:
      // between two of these samples an instant query finds none. An hour in which Prometheus does not run is missing.
      {
        name: 'vcpu-exporter.hour',
        interval: '1h',
        rules: [
          record('kvm_vm:cpi_hour:minutes', 'count_over_time(kvm_vm:cpi_busy:rate5m[1h:1m])'),
          record('kvm_vm:cpi_hour:sum', 'sum_over_time(kvm_vm:cpi_busy:rate5m[1h:1m])'),
          record('kvm_vm:cpi_hour:sum_of_squares', 'sum_over_time((kvm_vm:cpi_busy:rate5m ^ 2)[1h:1m])'),
        ],
      },
      // Within the five minutes that Prometheus looks back. The last hour is left out, as it may be the trouble. Only VMs that
      // were busy for an hour in all, more than a day ago, have a week to compare with.
      {
        name: 'vcpu-exporter.week',
        interval: '2m',
        rules: [
          record('kvm_vm:cpi_week:avg', |||
            sum_over_time(kvm_vm:cpi_hour:sum[1w] offset 1h)
              / sum_over_time(kvm_vm:cpi_hour:minutes[1w] offset 1h)
              and sum_over_time(kvm_vm:cpi_hour:minutes[6d] offset 1d) >= %(cpi_week_minutes)s
              and on (%(vm)s) last_over_time(kvm_vm_vcpus[5m])
          ||| % t),
          record('kvm_vm:cpi_week:stddev', |||
            sqrt(clamp_min(
              sum_over_time(kvm_vm:cpi_hour:sum_of_squares[1w] offset 1h)
                / sum_over_time(kvm_vm:cpi_hour:minutes[1w] offset 1h)
                - kvm_vm:cpi_week:avg ^ 2,
              0
            ))
          |||),
        ],
      },
    ],
  },
}
