// What is wrong with the host.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.host.alerts',
        rules: [
          alert(
            'KvmCoreOvercommitted',
            |||
              (
                kvm_host_core:demand:rate5m / (kvm_host_core:threads:count > 0) > %(core_demand)s
                  and on (%(node)s) kvm_host_node:idle_cores:rate5m >= %(core_idle_near)s
              )
                unless on (%(host)s) kvm_host:cpu_full:bool == 1
            ||| % t,
            '5m',
            'warning',
            'host',
            'A core has more to do than it can while others on its node are idle',
            [
              'Move a vCPU or a process away from core {{ $labels.core }} of package {{ $labels.package }}.',
              'Most time on the core:',
              text.list(
                'topk(3, max by (vm) (kvm_vm:time_by_core:rate5m{$host,package=$labels.package,core=$labels.core}) or label_replace(max(kvm_host_core:host_time:rate5m{$host,package=$labels.package,core=$labels.core}), "vm", "host processes", "", "")) > %s'
                % t.worth_naming,
                '{{ .Labels.vm }} ({{ .Value | printf "%.2g" }} CPUs)',
                none='not known by VM'
              ) + '.',
              'Its demand is {{ $value | printf "%.2g" }} times what its threads can give, while',
              text.anyOf('kvm_host_node:idle_cores:rate5m{$host,numa_node=$labels.numa_node}'),
              "cores' worth of time is idle on NUMA node {{ $labels.numa_node }}.",
            ],
            keep='5m'
          ),

          alert(
            'KvmPackageThrottled',
            'kvm_host_package:throttled_ratio:rate5m > %(package_throttled)s' % t,
            '5m',
            'warning',
            'host',
            'A CPU package is throttled because it is too hot',
            [
              'Check fans, airflow and power limits of the host; move VMs away until it is cool.',
              'Package {{ $labels.package }} was throttled {{ $value | %s }} of the time.' % text.share
              + text.optional('Its temperature is', 'kvm_host_temperature_celsius{$host,package=$labels.package}', text.whole, ' degrees Celsius.')
              + text.optional(
                'Its cores run at', 'avg(kvm_host_core:frequency:ratio{$host,package=$labels.package})', text.share, ' of their base frequency.'
              ),
            ]
          ),
        ],
      },
    ],
  },
}
