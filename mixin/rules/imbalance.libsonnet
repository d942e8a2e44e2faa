// Waits that idle CPUs could have taken: in each NUMA node, last-level cache, in the whole host, and of each VM.
//
// Avoidable wait, in CPUs, is the lower of two figures of the same place: the wait that no quota explains, and the idle time.
// It is 0 where nothing waits, so one busy vCPU on an idle host is no imbalance.
local lib = import '../lib/rules.libsonnet';
local record = lib.record;

// Without a figure of idle time there is still none of 0 to take.
local avoidable(object) = record(object + ':avoidable_wait:rate5m', |||
  (%(object)s:contention:rate5m <= %(object)s:idle_cpus:rate5m)
    or (%(object)s:idle_cpus:rate5m < %(object)s:contention:rate5m)
    or (%(object)s:contention:rate5m == 0)
||| % { object: object });

// Wait and idle time of a place that is made of whole cores.
local place(object, without) = [
  record(
    '%s:%s:rate5m' % [object, figure],
    'sum without (%s) (kvm_host_core:%s:rate5m)' % [without, figure]
  )
  for figure in ['contention', 'idle_cpus']
] + [avoidable(object)];

{
  local t = lib.names($._config),

  // Cores that share a last-level cache, where the host says so.
  local llc(figure) = record('kvm_host_llc:%s:rate5m' % figure, |||
    sum without (package, core, numa_node) (
      kvm_host_core:%(figure)s:rate5m
        * on (%(core)s) group_left (llc)
          topk by (%(core)s) (1, last_over_time(kvm_host_cpu_info{online="true", llc!=""}[5m]))
    )
  ||| % (t { figure: figure })),

  prometheusRules+:: {
    groups+: [
      {
        name: 'vcpu-exporter.imbalance',
        rules:
          place('kvm_host_node', 'package, core')
          + [llc('contention'), llc('idle_cpus'), avoidable('kvm_host_llc')]
          + [
            avoidable('kvm_host'),
            record('kvm_host:imbalance:ratio', |||
              kvm_host:avoidable_wait:rate5m
                / (
                  (sum without (vm) (kvm_vm:time:rate5m) or sum without (package, core, numa_node) (kvm_host_core:time:rate5m))
                    + kvm_host:contention:rate5m > 0
                )
            |||),
            // Of the nodes it runs on.
            record('kvm_vm:idle_cpus:rate5m', |||
              sum without (numa_node) (
                0 * (kvm_vm:time_by_node:share >= %(node_time_share)s)
                  + ignoring (vm) group_left () kvm_host_node:idle_cpus:rate5m
              )
            ||| % t),
            avoidable('kvm_vm'),
          ],
      },
    ],
  },
}
