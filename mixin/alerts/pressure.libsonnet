// Pressure stall information (PSI) of VMs. Memory only: pressure on CPU is the delay of vCPUs, and pressure on I/O is normal
// for a VM that reads and writes (docs/ALERTS.md).
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.pressure.alerts',
        rules: [
          // An idle VM does not stall: time in a stall is itself a floor of use.
          alert(
            'KvmVmMemoryPressure',
            'sum without (resource, kind) (rate(kvm_vm_pressure_seconds_total{resource="memory", kind="some"}[5m])) > %(memory_pressure)s' % t,
            '10m',
            'warning',
            'vm',
            'A VM stalls because its host lacks memory',
            [
              'Free memory on the host or move the VM, and check the memory limit of its cgroup and the swap of the host.',
              'Threads of the VM were stalled on memory {{ $value | %s }} of the time; the guest sees vCPUs and I/O that stop.' % text.share,
              'Free memory of the host:',
              text.list(
                '2^-30 * max by (numa_node) (kvm_host_numa_memory_bytes{$host,state="free"})',
                text.any('.Value') + ' GiB on node {{ .Labels.numa_node }}',
                sort='numa_node',
                none='unknown'
              ) + '.',
            ]
          ),
        ],
      },
    ],
  },
}
