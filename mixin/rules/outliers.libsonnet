// CPI while the VM is busy: an idle VM's is that of a few timer ticks, and says nothing of its work.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

{
  local names = lib.names($._config),
  local t = names { peers: names.fleet + ', peers, cpu_model' },

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.outliers',
        rules: [
          record('kvm_vm:cpi_busy:rate5m', |||
            sum without (mode) (kvm_vm:cpi:rate5m{mode="guest"})
              and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
          ||| % t),
          // With what makes VMs comparable.
          record('kvm_vm:cpi_busy_by_peers:rate5m', |||
            kvm_vm:cpi_busy:rate5m
              * on (%(vm)s) group_left (peers) topk by (%(vm)s) (1, kvm_vm:peers:info)
              * on (%(host)s) group_left (cpu_model)
                topk by (%(host)s) (1, last_over_time(kvm_host_info[2m]))
          ||| % t),
          // Of the others: sums over all, less the VM's own, over one less. A VM that two replicas of Prometheus recorded is
          // one VM among its peers.
          record('kvm_vm:cpi_peers:avg', |||
            sum without (peers, cpu_model) (
              (
                -1 * kvm_vm:cpi_busy_by_peers:rate5m
                  + on (%(peers)s) group_left () sum by (%(peers)s) (max by (%(vm)s, %(peers)s) (kvm_vm:cpi_busy_by_peers:rate5m))
              )
                / on (%(peers)s) group_left ()
                  (count by (%(peers)s) (max by (%(vm)s, %(peers)s) (kvm_vm:cpi_busy_by_peers:rate5m)) - 1 >= %(cpi_peers)s)
            )
          ||| % t),
          record('kvm_vm:cpi_peers:stddev', |||
            sqrt(clamp_min(
              sum without (peers, cpu_model) (
                (
                  -1 * kvm_vm:cpi_busy_by_peers:rate5m ^ 2
                    + on (%(peers)s) group_left () sum by (%(peers)s) (max by (%(vm)s, %(peers)s) (kvm_vm:cpi_busy_by_peers:rate5m) ^ 2)
                )
                  / on (%(peers)s) group_left ()
                    (count by (%(peers)s) (max by (%(vm)s, %(peers)s) (kvm_vm:cpi_busy_by_peers:rate5m)) - 1 >= %(cpi_peers)s)
              ) - kvm_vm:cpi_peers:avg ^ 2,
              0
            ))
          ||| % t),
          // The higher of mean + 2 sigma and 1.5 x mean: a VM whose CPI hardly ever moves is no outlier by a hair.
          record('kvm_vm:cpi_peers:limit', |||
            (kvm_vm:cpi_peers:avg + %(cpi_sigmas)s * kvm_vm:cpi_peers:stddev > %(cpi_over_mean)s * kvm_vm:cpi_peers:avg)
              or %(cpi_over_mean)s * kvm_vm:cpi_peers:avg
          ||| % t),
          record('kvm_vm:cpi_week:limit', |||
            (kvm_vm:cpi_week:avg + %(cpi_sigmas)s * kvm_vm:cpi_week:stddev > %(cpi_over_mean)s * kvm_vm:cpi_week:avg)
              or %(cpi_over_mean)s * kvm_vm:cpi_week:avg
          ||| % t),
          record('kvm_vm:cpi_above_peers:bool', 'kvm_vm:cpi_busy:rate5m > bool kvm_vm:cpi_peers:limit'),
          record('kvm_vm:cpi_above_week:bool', |||
            (kvm_vm:cpi_busy:rate5m > bool kvm_vm:cpi_week:limit)
              or 0 * kvm_vm:cpi_week:limit
          |||),
        ],
      },
    ],
  },
}
