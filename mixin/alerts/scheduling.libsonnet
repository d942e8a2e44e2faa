// Hosts, VMs and vCPUs that wait for CPUs. A VM that its quota stops waits too (measured on Linux 6.1, 6.12 and 6.18):
// KvmVmQuotaThrottled. Only the rest of the wait, contention, counts here.
local lib = import '../lib/alerts.libsonnet';
local numbers = import '../lib/numbers.libsonnet';
local suspects = import '../lib/suspects.libsonnet';
local text = import '../lib/text.libsonnet';

{
  local thresholds = $._config.thresholds,
  local names = lib.names($._config),
  // On a full host the alert about the host fires once, for all VMs.
  local t = names { unless_full: 'unless on (%(host)s) kvm_host:cpu_full:bool == 1' % names },
  local alert = lib.of($._config).alert,
  local percent(promql) = text.number(promql, text.share),

  local delay(name, threshold, severity, summary) = alert(
    name,
    |||
      kvm_vm:contention_ratio_of_worst_vcpu:rate5m > %(threshold)s
        %(unless_full)s
    ||| % (t { threshold: numbers.text(threshold) }),
    '5m',
    severity,
    'vm',
    summary,
    [
      'Move what shares the cores of VM {{ $labels.vm }}, or give the VM other cores.',
      'Where the VM waits, CPU time goes to:',
      suspects.ofWait + '.',
      text.number(
        'count(max by (vcpu) (kvm_vcpu:contention_ratio:rate5m{$vm} > %s and kvm_vcpu:demand:rate5m{$vm} >= %s))' % [numbers.text(threshold), t.vcpu_wanted_cores],
        text.whole
      ),
      'of',
      text.number('count(max by (vcpu) (kvm_vcpu:demand:rate5m{$vm}))', text.whole),
      'vCPUs wait more than %s of the time they want to run;' % numbers.percent(threshold),
      text.list(
        'topk(1, kvm_vcpu:contention_ratio:rate5m{$vm} and kvm_vcpu:demand:rate5m{$vm} >= %s)' % t.vcpu_wanted_cores,
        'vCPU {{ .Labels.vcpu }} waits most, {{ .Value | ' + text.share + ' }}'
      ) + '.',
      'The guest sees the wait as steal.',
    ],
    keep='5m'
  ),

  local saturated(severity, expr, keep) = alert(
    'KvmHostCpuSaturated',
    expr,
    '3m',
    severity,
    'host',
    'The host has fewer CPUs than its VMs and processes want',
    [
      'Move VMs away from this host, or limit the largest ones. The host wants',
      text.anyOf('kvm_host:cpu_demand:cpus{$host}'),
      'of',
      text.number('kvm_host:cpus:count{$host}', text.whole),
      'CPUs, and its vCPUs wait',
      percent('kvm_host:contention_ratio:rate5m{$host}'),
      'of the time they want to run.',
      suspects.ofHost,
      'Alerts about waiting VMs of this host are suppressed.',
    ],
    keep=keep
  ),

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.scheduling.alerts',
        rules: [
          // One of the two at a time. Where waits grow, the warning ends when the critical alert begins: the `for` of the one
          // is the keep_firing_for of the other. Where they shrink, the warning begins when the critical alert ends: 7m15s,
          // a bit more than 7m as the ends of ranges differ between Prometheus 2 and 3, and `for` are the other's 10m.
          saturated('critical', 'kvm_host:cpu_saturated_critical:bool == 1', '10m'),
          saturated('warning', |||
            kvm_host:cpu_saturated:bool == 1
              unless on (%(host)s) max_over_time(kvm_host:cpu_saturated_critical:bool[7m15s]) == 1
          ||| % t, '3m'),

          alert(
            'KvmHostImbalanced',
            |||
              (kvm_host:avoidable_wait:rate5m >= %(avoidable_wait_cores)s and kvm_host:imbalance:ratio >= %(imbalance)s)
                %(unless_full)s
            ||| % t,
            '10m',
            'warning',
            'host',
            'vCPUs wait while other CPUs of the host are idle',
            [
              'Let the VMs that wait use more CPUs: pinning, affinity or cpusets keep them from idle ones.',
              text.any('$value') + " CPUs' worth of waiting,",
              percent('kvm_host:imbalance:ratio{$host}'),
              'of what vCPUs want, is avoidable, and',
              text.anyOf('kvm_host:idle_cpus:rate5m{$host}'),
              'CPUs are idle. VMs that wait most:',
              text.list(
                'topk(3, max by (vm) (kvm_vm:contention:rate5m{$host}) > %s)' % t.worth_naming,
                '{{ .Labels.vm }} ({{ .Value | printf "%.2g" }} CPUs)'
              ) + '.',
              'Idle CPUs by NUMA node:',
              text.list(
                'max by (numa_node) (kvm_host_node:idle_cpus:rate5m{$host})',
                text.any('.Value') + ' on node {{ .Labels.numa_node }}',
                sort='numa_node'
              ) + '.',
            ],
            keep='10m'
          ),

          delay('KvmVmCpuDelayHigh', thresholds.delay, 'warning', 'vCPUs of a VM wait for CPUs'),
          delay('KvmVmCpuDelayCritical', thresholds.delay_critical, 'critical', 'vCPUs of a VM wait for CPUs so long that the guest stalls'),

          alert(
            'KvmVcpuStarved',
            |||
              max without (vcpu) (
                kvm_vcpu:contention_ratio:rate5m > clamp_min(%(starved_over_siblings)s * kvm_vcpu:delay_ratio_siblings:rate5m, %(starved)s)
                  and kvm_vcpu:demand:rate5m >= %(vcpu_wanted_cores)s
              )
                %(unless_full)s
            ||| % t,
            '5m',
            'warning',
            'vm',
            'One vCPU of a VM waits for a CPU far more than its siblings',
            [
              'Look at what else runs on the core of one vCPU of VM {{ $labels.vm }}:',
              text.list(
                'topk(1, kvm_vcpu:contention_ratio:rate5m{$vm} and kvm_vcpu:demand:rate5m{$vm} >= %s and kvm_vcpu:contention_ratio:rate5m{$vm} > %s * kvm_vcpu:delay_ratio_siblings:rate5m{$vm})'
                % [t.vcpu_wanted_cores, t.starved_over_siblings],
                'vCPU {{ .Labels.vcpu }} waits {{ .Value | ' + text.share + ' }} of the time it wants to run, all vCPUs together'
              ),
              percent('kvm_vm:contention_ratio:rate5m{$vm}') + '.',
              'Where the VM waits, CPU time goes to:',
              suspects.ofWait + '.',
            ],
            keep='5m'
          ),

          // Idle cores are those that would take over all that is shared, one for each core's worth of its time.
          alert(
            'KvmVmSmtContention',
            |||
              kvm_vm:smt_shared_ratio:rate5m > %(smt_shared)s
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
                and on (%(vm)s) kvm_vm:idle_cores_near:rate5m >= kvm_vm:smt_shared_ratio:rate5m * kvm_vm:time:rate5m
            ||| % t,
            '5m',
            'warning',
            'vm',
            'A VM runs beside busy SMT siblings while cores are idle',
            [
              'Let VM {{ $labels.vm }} use the idle cores of its NUMA nodes:',
              text.anyOf('kvm_vm:idle_cores_near:rate5m{$vm}') + " cores' worth of time is idle there.",
              "At least {{ $value | %s }} of the VM's CPU time (" % text.share + text.anyOf('kvm_vm:time:rate5m{$vm}'),
              'CPUs) is spent on a core whose other thread runs a vCPU too.',
            ]
          ),
        ],
      },
    ],
  },
}
