// Memory and devices beside the nodes a VM runs on.
local lib = import '../lib/alerts.libsonnet';
local suspects = import '../lib/suspects.libsonnet';
local text = import '../lib/text.libsonnet';

local share = '{{ .Value | %s }} on node {{ .Labels.numa_node }}' % text.share;
{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,
  local vcpuTime = [
    'vCPU time:',
    text.list('max by (numa_node) (kvm_vm:time_by_node:share{$vm}) > ' + t.worth_naming, share, sort='numa_node') + '.',
  ],
  local measured = text.optional('Measured:', 'kvm_vm:dram_loads_remote_ratio:rate5m{$vm}', text.share, ' of its DRAM loads are remote.'),

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.memory.alerts',
        rules: [
          // A VM that needs several nodes has remote memory wherever it is: only what goes beyond that is trouble.
          alert(
            'KvmVmMemoryRemote',
            |||
              kvm_vm:memory_remote:ratio > %(memory_remote)s
                and kvm_vm:memory_remote:ratio - kvm_vm:memory_remote_spread:ratio > %(memory_remote_over_spread)s
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '5m',
            'warning',
            'vm',
            'VM memory is on other NUMA nodes than its vCPUs',
            [
              'Move the vCPUs to the node with most of the memory, or the memory to the vCPUs.',
              '{{ $value | %s }} of its memory accesses meet another node,' % text.share,
              'if it uses all its memory alike. Memory:',
              text.list('max by (numa_node) (kvm_vm:memory_by_node:share{$vm}) > ' + t.worth_naming, share, sort='numa_node') + '.',
              'vCPU time:',
              text.list('max by (numa_node) (kvm_vm:time_by_node:share{$vm}) > ' + t.worth_naming, share, sort='numa_node') + '.' + measured,
            ]
          ),

          // What the hardware counts; where memory and time by node say it already, that alert is enough.
          alert(
            'KvmVmDramRemote',
            |||
              kvm_vm:dram_loads_remote_ratio:rate5m > %(dram_remote)s
                and (
                  kvm_vm:dram_loads_remote_ratio:rate5m - kvm_vm:memory_remote_spread:ratio > %(memory_remote_over_spread)s
                    unless on (%(vm)s) kvm_vm:memory_remote:ratio > %(memory_remote)s
                )
                and on (%(vm)s) kvm_vm:dram_loads:rate5m >= %(dram_loads_per_second)s
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '10m',
            'warning',
            'vm',
            'Most DRAM loads of a VM go to another NUMA node',
            [
              'Find out which memory the guest uses most and on which node it is: numastat -p PID on the host.',
              '{{ $value | %s }} of its DRAM loads are remote,' % text.share,
              'while',
              text.number('kvm_vm:memory_remote:ratio{$vm}', text.share),
              'is expected from where its memory and its vCPUs are.',
              'Other VMs that load most from the memory of its nodes:',
              suspects.ofMemory + '.',
            ] + vcpuTime
          ),

          // A single move between nodes shows on both for five minutes, so this waits for ten.
          alert(
            'KvmVmSpreadOverNodes',
            |||
              kvm_vm:numa_nodes_used:count / (kvm_vm:numa_nodes_needed:count > 0) > %(nodes_over_needed)s
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '10m',
            'info',
            'vm',
            'vCPUs of a VM run on more NUMA nodes than they need',
            [
              'Bind the vCPUs to as few nodes as they fit on, or let the guest see the nodes; ignore this if they float by intent.',
              'The vCPUs run on',
              text.number('kvm_vm:numa_nodes_used:count{$vm}', text.whole),
              'NUMA nodes and would fit on',
              text.number('kvm_vm:numa_nodes_needed:count{$vm}', text.whole) + ':',
              text.list(
                'max by (numa_node) (kvm_vm:time_by_node:share{$vm}) >= ' + t.node_time_share,
                '{{ .Value | %s }} of their time on node {{ .Labels.numa_node }}' % text.share,
                sort='numa_node'
              ) + '.',
              'They share data across the interconnect.',
            ]
          ),

          alert(
            'KvmVmDeviceRemote',
            |||
              max without (device, class, numa_node) (kvm_vm:device_remote:ratio) > %(device_remote)s
                and (
                  max without (device, class, numa_node) (kvm_vm:device_remote:ratio)
                    - kvm_vm:memory_remote_spread:ratio > %(memory_remote_over_spread)s
                )
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '5m',
            'warning',
            'vm',
            'A passed-through device is far from the vCPUs of its VM',
            [
              'Bind the vCPUs to the node of the device, or give the VM a device on its own node.',
              'Up to {{ $value | %s }} of its vCPU time is far from a device, by NUMA distance. Devices, with that share:' % text.share,
              text.list(
                'max by (device, class, numa_node) (kvm_vm:device_remote:ratio{$vm})',
                '{{ with .Labels.class }}{{ . }} {{ end }}{{ .Labels.device }} on node {{ .Labels.numa_node }} ({{ .Value | ' + text.share + ' }})',
                sort='device'
              ) + '.',
            ] + vcpuTime + [
              'Its interrupts and its data cross the interconnect.',
            ]
          ),
        ],
      },
    ],
  },
}
