// KVM / Host: the rows that are opened by a click.
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  local selector = { host: s.host, vm: s.on(['vm']) };
  local vm_series = frame.to_series('vm', ['vm'], kept=frame.host_names);

  local load = [
    p.timeseries(
      'Demand of each package',
      |||
        Cores' worth of CPU demand on each package (socket). Even lines are good. If one is high and one low, move
        VMs, as far as memory and devices permit.
      ||| + words.runbook(['KvmCoreOvercommitted']),
      [p.query('kvm_host_package:demand:rate5m{%(host)s}' % selector, 'package {{package}}')],
      'suffix:cores',
      { decimals: 1 }
    ),
    p.timeseries(
      'Imbalance over time',
      |||
        CPUs' worth of waiting that idle CPUs could take: of the host, of each NUMA node and of each last-level cache.
        0 is good. Of the host alone: the idle CPUs are on another node. Of a node or a cache, too: pinning.
      ||| + words.runbook(['KvmHostImbalanced', 'KvmCoreOvercommitted']),
      [
        p.query('kvm_host:avoidable_wait:rate5m{%(host)s}' % selector, 'host'),
        p.query('kvm_host_node:avoidable_wait:rate5m{%(host)s}' % selector, 'node {{numa_node}}'),
        p.query('kvm_host_llc:avoidable_wait:rate5m{%(host)s}' % selector, 'cache {{llc}}'),
      ],
      'suffix:CPUs',
      { decimals: 1 }
    ),
    p.timeseries(
      'Busiest VMs',
      |||
        Cores' worth of time of the ten VMs that use most. Use alone is no trouble: read it with the delay of the
        others. Click a VM to open it.
      ||| + words.runbook(['KvmVmCpuDelayHigh']),
      [p.query(s.worst(10, selector.vm, 'kvm_vm:time:rate5m{%(host)s}' % selector), '{{vm}}')],
      'suffix:cores',
      { legend: 'table', decimals: 1, links: [vm_series] }
    ),
  ];

  local work = [
    p.timeseries(
      'CPU time by mode',
      |||
        CPUs' worth of time of all cores, by mode: guest is vCPUs; user and system are host processes, QEMU and the
        kernel; steal is what a hypervisor below this host takes. Much system, irq or softirq: I/O and network of the
        host take CPUs from the VMs.
      ||| + words.runbook(['KvmHostCpuSaturated']),
      [p.query('kvm_host:cpu_time:rate5m{%(host)s}' % selector, '{{mode}}')],
      'suffix:CPUs',
      { width: 12, stack: true, legend: 'table', decimals: 1, none: 'The source cpu_time is off' }
    ),
    p.timeseries(
      'Host processes by NUMA node',
      |||
        CPUs' worth of time that no VM used, on each NUMA node: host processes, the kernel, interrupts and steal. Keep
        it small on nodes whose VMs are pinned: bind host processes to CPUs that no VM has.
      ||| + words.runbook(['KvmCoreOvercommitted', 'KvmVmCpuDelayHigh']),
      [p.query('sum by (numa_node) (kvm_host_core:host_time:rate5m{%(host)s})' % selector, 'node {{numa_node}}')],
      'suffix:CPUs',
      { width: 12, stack: true, decimals: 2, none: 'The source cpu_time is off' }
    ),
  ];

  local caches = [
    p.timeseries(
      'Neighbors in each last-level cache',
      |||
        Cores' worth of time of each VM in each last-level cache, the 16 largest. VMs of one cache evict each other's
        data. When a VM's misses rise, look for the VM that grew here at that time.
      ||| + words.runbook(['KvmVmCacheMissStorm', 'KvmVmCpiAbovePeers']),
      [
        p.query(
          s.worst(16, s.on(['vm', 'llc']), 'kvm_vm:time_by_llc:rate5m{%(host)s}' % selector),
          'LLC {{llc}}: {{vm}}'
        ),
      ],
      'suffix:cores',
      { width: 12, height: 9, stack: true, legend: 'table', decimals: 1, links: [vm_series] }
    ),
    p.timeseries(
      'Cache misses by VM',
      |||
        Cache misses per second (last level on Intel, L2 on AMD) of the ten VMs with the most. The VM that grew first
        is the likely noisy neighbor. Move it to another cache, or limit it.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      [
        p.query(
          s.worst_of(
            10,
            selector.vm,
            'sum by (%(vm)s) (kvm_vcpu:cache_misses:rate5m{%(host)s,mode="guest"})' % selector
          ),
          '{{vm}}'
        ),
      ],
      'si:/s',
      { width: 12, height: 9, legend: 'table', links: [vm_series] }
    ),
  ];

  local bandwidth = [
    p.timeseries(
      'Cache occupancy by VM',
      |||
        Bytes of the last-level cache that hold each VM's data, the ten largest (Intel RDT, AMD QoS). A VM that takes
        over a cache pushes the others out; limit it with an allocation of resctrl, or move it.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      [
        p.query(
          s.worst(10, s.on(['vm', 'llc']), 'kvm_vm_llc_occupancy_bytes{%(host)s}' % selector),
          'LLC {{llc}}: {{vm}}'
        ),
      ],
      'bytes',
      { width: 12, stack: true, legend: 'table', links: [vm_series], none: 'No resctrl monitoring on this host' }
    ),
    p.timeseries(
      'Memory bandwidth by VM',
      |||
        Bytes per second between the last-level cache and memory, the ten VMs with the most (Intel RDT, AMD QoS). A VM
        that saturates the memory of a node slows every VM of that node.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      [
        p.query(
          s.worst_of(10, selector.vm, 'sum by (%(vm)s) (kvm_vm:memory_bandwidth:rate5m{%(host)s})' % selector),
          '{{vm}}'
        ),
      ],
      'binBps',
      { width: 12, stack: true, legend: 'table', links: [vm_series], none: 'No resctrl monitoring on this host' }
    ),
  ];

  local smt = [
    p.heatmap(
      'Time both threads of a core were busy',
      |||
        SMT: seconds per second in which vCPUs ran on both threads of a core, at least. Each then gets much less than
        the core. Dark is good. Bright while other cores of the node are idle: pin siblings apart, or unpin them.
      ||| + words.runbook(['KvmVmSmtContention']),
      [p.query(s.by_core('kvm_host_core:smt_shared:rate5m{%(host)s}' % selector), s.place)],
      'percentunit',
      { width: 12, height: 14, low: 0, high: 1, scheme: 'Oranges', zeros: false }
    ),
    p.bargauge(
      'VMs beside busy siblings',
      |||
        Share of each VM's time on a core whose other thread was busy, too, the 15 highest. Over 30 % is trouble when
        cores of its nodes are idle; on a full host it is normal.
      ||| + words.runbook(['KvmVmSmtContention']),
      [p.query('topk(15, kvm_vm:smt_shared_ratio:rate5m{%(host)s})' % selector, '{{vm}}', now=true)],
      'percentunit',
      {
        width: 12,
        height: 14,
        limits: p.steps([[limits.smt_shared, p.orange]]),
        decimals: 0,
        maximum: 1,
        links: [vm_series],
      }
    ),
  ];

  local numa = [
    p.timeseries(
      'NUMA memory, by node and use',
      |||
        Memory of each node by use. Free and file are room. A node without room gives new VMs memory of another node:
        place VMs elsewhere, or make room.
      ||| + words.runbook(['KvmVmMemoryRemote']),
      [p.query('kvm_host_numa_memory_bytes{%(host)s} > 0' % selector, 'node {{numa_node}} {{state}}')],
      'bytes',
      { stack: true, legend: 'table', width: 10, height: 9, decimals: 0 }
    ),
    p.timeseries(
      'vCPU time of each node',
      |||
        Cores' worth of vCPU time on each NUMA node. Even is good where VMs are spread evenly.
      ||| + words.runbook(['KvmVmSpreadOverNodes']),
      [p.query('sum by (numa_node) (kvm_vm:time_by_node:rate5m{%(host)s})' % selector, 'node {{numa_node}}')],
      'suffix:cores',
      { width: 7, height: 9, stack: true, decimals: 1 }
    ),
    t.table(
      'NUMA distances',
      |||
        Distance from each node (row) to the memory of each node (column), as firmware states it: 10 is local, 20
        takes about twice as long. Keep the vCPUs and the memory of a VM on one node.
      |||,
      [p.query('max by (from, to) (kvm_host_numa_distance{%(host)s})' % selector)],
      [t.column('from\\to', 'From / to')],
      { width: 7, height: 9, unit: 'none', matrix: ['from', 'to'] }
    ),
  ];

  local pages = [
    p.timeseries(
      'Huge page pools',
      |||
        Huge pages in the pool of each node, free and used. A VM that needs more than the free pages of its node does
        not start there, or gets pages of another node: enlarge the pool (`nr_hugepages`) or place the VM elsewhere.
      ||| + words.runbook(['KvmVmMemoryRemote']),
      [p.query('kvm_host_hugepages{%(host)s} > 0' % selector, 'node {{numa_node}} {{size}} {{state}}')],
      'none',
      { width: 12, stack: true, legend: 'table', decimals: 0, none: 'No huge page pool on this host' }
    ),
    p.timeseries(
      'Huge page pools in use',
      |||
        Used share of the pool of each node and size. At 100 % no further VM with huge pages starts on the node.
      |||,
      [
        p.query(
          |||
            sum by (numa_node, size) (kvm_host_hugepages{%(host)s,state="used"})
              / (sum by (numa_node, size) (kvm_host_hugepages{%(host)s}) > 0)
          ||| % selector,
          'node {{numa_node}} {{size}}'
        ),
      ],
      'percentunit',
      { width: 12, decimals: 0, maximum: 1, none: 'No huge page pool on this host' }
    ),
  ];

  local traffic = [
    p.timeseries(
      'Page allocations by node and outcome',
      |||
        Pages per second that the kernel allocated on each node. hit and local_node are good. miss and foreign: the
        wanted node had no room, and the memory is on another node. other_node: a task on another node got it.
      ||| + words.runbook(['KvmVmMemoryRemote']),
      [
        p.query(
          s.worst(16, s.on(['numa_node', 'outcome']), 'kvm_host_node:allocations:rate5m{%(host)s}' % selector),
          'node {{numa_node}} {{outcome}}'
        ),
      ],
      'si:/s',
      { width: 12, legend: 'table' }
    ),
    p.timeseries(
      'DRAM loads by VM and node',
      |||
        Loads per second that each VM's vCPUs on a node made from the memory of that node, the ten highest (event set
        dram_loads). The VM at the top takes most of the node's memory bandwidth: every other VM with memory there
        waits longer for its loads.
      ||| + words.runbook(['KvmVmDramRemote']),
      [
        p.query(
          s.worst_of(
            10,
            s.on(['vm', 'numa_node']),
            'sum by (%s) (kvm_vm:dram_loads_by_node:rate5m{%s,target="local"})' % [s.on(['vm', 'numa_node']), s.host]
          ),
          'node {{numa_node}}: {{vm}}'
        ),
      ],
      'si:/s',
      { width: 12, legend: 'table', links: [vm_series], none: 'Event set dram_loads is off, or the CPU does not have it' }
    ),
  ];

  local frequency = 'kvm_host_core:frequency:ratio{%(host)s}' % selector;
  local speed = [
    p.timeseries(
      'Frequency of each package',
      |||
        Frequency of the slowest core and of the mean core of each package, over the base frequency. At or above 100 %
        is good under load; idle cores may be slow. Below 90 % and busy: heat, power limits or the governor.
      ||| + words.runbook(['KvmPackageThrottled']),
      [
        p.query('min by (package) (%s)' % frequency, 'package {{package}}, slowest core'),
        p.query('avg by (package) (%s)' % frequency, 'package {{package}}, mean'),
      ],
      'percentunit',
      { decimals: 0 }
    ),
    p.timeseries(
      'Throttled for heat',
      |||
        Share of time in which each package was too hot and slowed its cores down. Good: 0. Over 5 % every VM on it is
        slower.
      ||| + words.runbook(['KvmPackageThrottled']),
      [p.query('kvm_host_package:throttled_ratio:rate5m{%(host)s}' % selector, 'package {{package}}')],
      'percentunit',
      { limits: [[limits.package_throttled, p.red]], decimals: 0 }
    ),
    p.timeseries(
      'Temperature',
      |||
        Temperature of each package. Compare it with other packages; "Throttled for heat" shows when it is too high.
      ||| + words.runbook(['KvmPackageThrottled']),
      [p.query('kvm_host_temperature_celsius{%(host)s}' % selector, 'package {{package}}')],
      'celsius',
      { decimals: 0 }
    ),
  ];

  {
    load: [load, work],
    sharing: [caches, bandwidth, smt],
    numa: [numa, traffic, pages],
    speed: speed,
    cost: (import 'exporter_cost.libsonnet')(config),
  }
