// Exits from the guest.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.exits.alerts',
        rules: [
          alert(
            'KvmVmExitStorm',
            |||
              kvm_vm:exits_per_cpu_second:rate5m > %(exits_per_cpu_second)s
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '5m',
            'warning',
            'vm',
            'A VM exits to the host far too often',
            [
              'Find the cause by the most frequent reason of exits:',
              text.list('topk(3, max by (reason) (kvm_vm:exits:rate5m{$vm}))', '{{ .Labels.reason }} ({{ .Value | %s }}/s)' % text.large) + '.',
              'The vCPUs exit {{ $value | %s }} times per second of CPU time; each exit costs a microsecond or more.' % text.large,
            ]
          ),
        ],
      },
    ],
  },
}
