// KVM / VM: the rows that are opened by a click.
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  local neighbor_series = frame.to_series('vm', frame.host_names + ['vm']);

  // What hosts have of the VM, as one series before and after a live migration.
  local of_vm(metric, more='', by=[]) = s.moved('%s{%s%s}' % [metric, s.vm, more], by);

  local misses = p.timeseries(
    'Neighbors in its cache',
    |||
      Cache misses per second of this VM and of the VMs that share a last-level cache with it. The line that rose when
      the trouble began is the noisy neighbor; click it to open it. Move one of the two to another cache.
    ||| + words.runbook(['KvmVmCacheMissStorm', 'KvmVmCpiAbovePeers']),
    [
      p.query(
        |||
          sum by (%(vm)s) (
            kvm_vm:cache_misses_by_llc:rate5m{%(hosts)s}
              and on (%(llc)s) kvm_vm:time_by_llc:rate5m{%(selector)s} > 0.05
          )
        ||| % { vm: s.on(['vm']), llc: s.on(['llc']), hosts: s.hosts, selector: s.vm },
        '{{vm}}'
      ),
    ],
    'si:/s',
    { width: 12, height: 8, links: [neighbor_series] }
  );

  local waiting = [
    p.timeseries(
      'Quota throttling',
      |||
        Share of the quota's periods in which the quota was used up, by the level it is set on: the vCPUs, the VM, or
        a group around it. 0 is good. Over 25 % the quota makes the VM slow: raise it, or give the VM less to do.
      ||| + words.runbook(['KvmVmQuotaThrottled']),
      [p.query(of_vm('kvm_vm:cpu_throttled_ratio:rate5m', by=['level']), 'quota of {{level}}')],
      'percentunit',
      { decimals: 0, limits: [[limits.quota_throttled, p.red]], none: 'No CPU quota' }
    ),
    p.timeseries(
      'CPU demand',
      |||
        Cores' worth of time on a core, waiting for one, and what the quota allows. Waiting with little use is
        contention on single cores; use at the quota is the quota.
      ||| + words.runbook(['KvmVmCpuDelayHigh', 'KvmVmQuotaThrottled']),
      [
        p.query(of_vm('kvm_vm:time:rate5m'), 'on a core'),
        p.query(of_vm('kvm_vm:delay:rate5m'), 'waiting'),
        p.query(of_vm('kvm_vm_cpu_quota_cores', by=['level']), 'quota of {{level}}'),
      ],
      'suffix:cores',
      {
        decimals: 2,
        overrides: [
          p.override('waiting', { color: p.color(p.red) }),
          p.override_re('quota.*', { 'custom.lineStyle': p.dashed, 'custom.fillOpacity': 0 }),
        ],
      }
    ),
    p.timeseries(
      'Pressure (PSI)',
      |||
        Share of time in which some or all (full) threads of the VM's cgroup waited for CPU, memory or I/O. Near 0 is
        good. Memory: the host reclaims the VM's pages. I/O: the storage of the host is slow.
      ||| + words.runbook(['KvmVmCpuDelayHigh']),
      [p.query(of_vm('kvm_vm:pressure:rate5m', by=['resource', 'kind']), '{{resource}} {{kind}}')],
      'percentunit',
      { decimals: 1, none: 'No PSI: the kernel or the cgroup does not count it' }
    ),
  ];

  local nodes = [
    p.timeseries(
      'vCPU time by NUMA node',
      |||
        Share of its vCPUs' time on each node. One node is best for a VM that fits; compare with "Memory by NUMA
        node".
      ||| + words.runbook(['KvmVmSpreadOverNodes', 'KvmVmMemoryRemote']),
      [p.query(of_vm('kvm_vm:time_by_node:share', by=['numa_node']), 'node {{numa_node}}')],
      'percentunit',
      { stack: true, maximum: 1, decimals: 0 }
    ),
    p.timeseries(
      'Memory by NUMA node',
      |||
        Share of its memory on each node. It should match "vCPU time by NUMA node". If not, move the vCPUs to the
        memory, or the memory to the vCPUs.
      ||| + words.runbook(['KvmVmMemoryRemote']),
      [p.query(of_vm('kvm_vm:memory_by_node:share', by=['numa_node']), 'node {{numa_node}}')],
      'percentunit',
      { stack: true, maximum: 1, decimals: 0 }
    ),
    p.timeseries(
      'Remote memory accesses',
      |||
        Expected: the chance that a memory access goes to another node, from where its memory is and where its vCPUs
        run. Unavoidable: the part that running on several nodes explains. Measured: the share of its DRAM loads that
        another node served (event set dram_loads). Expected well above unavoidable is misplaced memory.
      ||| + words.runbook(['KvmVmMemoryRemote', 'KvmVmDramRemote']),
      [
        p.query(of_vm('kvm_vm:memory_remote:ratio'), 'expected'),
        p.query(of_vm('kvm_vm:memory_remote_spread:ratio'), 'unavoidable'),
        p.query(of_vm('kvm_vm:dram_loads_remote_ratio:rate5m'), 'measured'),
      ],
      'percentunit',
      { decimals: 0, limits: [[limits.memory_remote, p.red]] }
    ),
  ];

  local devices_and_moves = [
    t.table(
      'Passed-through devices',
      |||
        Host devices of the VM, their nodes, and the share of its vCPU time that is far from each device, by NUMA
        distance. 0 is good. Over 50 %, and more than running on several nodes explains, pin the VM to the device's
        node, or give it a device of its own node.
      ||| + words.runbook(['KvmVmDeviceRemote']),
      [
        p.query('max by (device, class, driver, numa_node) (kvm_vm_device_info{%s})' % s.vm),
        p.query('max by (device, class, numa_node) (kvm_vm:device_remote:ratio{%s})' % s.vm),
      ],
      [
        t.column('device', 'Device', { width: 120 }),
        t.column('class', 'Class', { width: 85 }),
        t.column('driver', 'Driver'),
        t.column('numa_node', 'Node', { width: 60 }),
        t.column('Value #B', 'Far', {
          width: 60,
          unit: 'percentunit',
          decimals: 0,
          cell: 'color-text',
          limits: p.steps([[limits.device_remote, p.red]]),
        }),
      ],
      { width: 8, height: 7, none: 'No passed-through device' }
    ),
    p.timeseries(
      'NUMA nodes used and needed',
      |||
        NUMA nodes its vCPUs run on, and nodes it needs. Used equal to needed is good.
      ||| + words.runbook(['KvmVmSpreadOverNodes']),
      [
        p.query(of_vm('kvm_vm:numa_nodes_used:count'), 'nodes used'),
        p.query(of_vm('kvm_vm:numa_nodes_needed:count'), 'nodes needed'),
      ],
      'none',
      {
        decimals: 0,
        overrides: [
          p.override('nodes needed', {
            'custom.lineStyle': p.dashed,
            'custom.fillOpacity': 0,
            color: p.color(p.green),
          }),
        ],
      }
    ),
    p.timeseries(
      'Moves between CPUs and nodes',
      |||
        Moves per second of its vCPUs to another CPU, and to another NUMA node. Few are good. Many moves between nodes
        leave memory and caches behind: pin the VM to a node.
      ||| + words.runbook(['KvmVmSpreadOverNodes']),
      [
        p.query('sum(kvm_vcpu:migrations:rate5m{%s})' % s.vm, 'between CPUs'),
        p.query(of_vm('kvm_vm:numa_moves:rate5m'), 'between nodes'),
      ],
      'si:/s',
      { decimals: 2 }
    ),
  ];

  local traffic = [
    p.timeseries(
      'NUMA balancing of its memory',
      |||
        Work of the kernel's NUMA balancing on its memory, per second: page table entries marked, faults on them (a
        vCPU waits for each), and pages moved to another node. A burst after a move is normal. Many faults all the
        time cost the VM: pin vCPUs and memory to one node.
      ||| + words.runbook(['KvmVmMemoryRemote', 'KvmVmSpreadOverNodes']),
      [p.query(of_vm('kvm_vm:numa_balancing:rate5m', by=['event']), '{{event}}')],
      'si:/s',
      { width: 12, decimals: 0, none: 'Not counted: needs cgroup v2 and Linux 6.12' }
    ),
    p.timeseries(
      'DRAM loads on its nodes, by VM',
      |||
        Loads per second from the memory of nodes where its memory is, of this VM and of others there, the ten highest
        (event set dram_loads). Another VM that rose when the trouble began takes the bandwidth of that node: move one
        of the two.
      ||| + words.runbook(['KvmVmDramRemote']),
      [
        p.query(
          s.worst_of(
            10,
            s.on(['vm', 'numa_node']),
            |||
              sum by (%(vm_node)s) (
                kvm_vm:dram_loads_by_node:rate5m{%(hosts)s,target="local"}
                  and on (%(node)s) kvm_vm:memory_by_node:share{%(vm)s} > 0.05
              )
            ||| % { vm_node: s.on(['vm', 'numa_node']), hosts: s.hosts, node: s.on(['numa_node']), vm: s.vm }
          ),
          'node {{numa_node}}: {{vm}}'
        ),
      ],
      'si:/s',
      {
        width: 12,
        legend: 'table',
        links: [neighbor_series],
        none: 'Event set dram_loads is off, or the CPU does not have it',
      }
    ),
  ];

  local bandwidth = [
    p.timeseries(
      'Memory bandwidth of VMs in its caches',
      |||
        Bytes per second between memory and the last-level caches that this VM uses, by VM, the ten highest (Intel RDT,
        AMD QoS). The VM that rose when the trouble began is the suspect: move it to another node.
      ||| + words.runbook(['KvmVmCacheMissStorm', 'KvmVmDramRemote']),
      [
        p.query(
          s.worst_of(
            10,
            s.on(['vm']),
            |||
              sum by (%(by_vm)s) (
                kvm_vm:memory_bandwidth:rate5m{%(hosts)s}
                  and on (%(llc)s) kvm_vm:time_by_llc:rate5m{%(vm)s} > 0.05
              )
            ||| % { by_vm: s.on(['vm']), hosts: s.hosts, llc: s.on(['llc']), vm: s.vm }
          ),
          '{{vm}}'
        ),
      ],
      'binBps',
      { width: 24, legend: 'table', links: [neighbor_series], none: 'No resctrl monitoring of VMs in its caches' }
    ),
  ];

  local cache = [
    p.timeseries(
      'Cache occupancy',
      |||
        Bytes of each last-level cache that hold its data (Intel RDT, AMD QoS). When it falls while misses rise, a
        neighbor evicts its data.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      [p.query(of_vm('kvm_vm_llc_occupancy_bytes', by=['llc']), 'LLC {{llc}}')],
      'bytes',
      { stack: true, none: 'No resctrl monitoring of this VM' }
    ),
    p.timeseries(
      'Memory bandwidth',
      |||
        Bytes per second between the last-level cache and memory, and the part that goes to another node (Intel RDT,
        AMD QoS).
      ||| + words.runbook(['KvmVmMemoryRemote']),
      [
        p.query('sum(kvm_vm:memory_bandwidth:rate5m{%s})' % s.vm, 'all'),
        p.query(
          'sum(kvm_vm:memory_bandwidth:rate5m{%s}) * %s' % [s.vm, of_vm('kvm_vm:memory_bandwidth_remote:ratio')],
          'remote'
        ),
      ],
      'binBps',
      { overrides: [p.override('remote', { color: p.color(p.red) })], none: 'No resctrl monitoring of this VM' }
    ),
    p.timeseries(
      'Topdown of the guest',
      |||
        Issue slots of the guest by topdown category (event set topdown). Retiring is useful work. Backend bound: it
        waits for memory or a busy sibling. Frontend bound: it waits for code.
      ||| + words.runbook(['KvmVmCpiAboveItsWeek']),
      [p.query(of_vm('kvm_vm:topdown:ratio', by=['category']), '{{category}}')],
      'percentunit',
      { stack: true, decimals: 0, none: 'Event set topdown is off, or the CPU does not have it' }
    ),
  ];

  local exits = [
    p.timeseries(
      'Exits by reason',
      |||
        VM exits per second, by reason where reasons are counted. The reason that grew says where to look in the
        guest: hlt is idling, ept_violation is memory, io and msr are devices and timers.
      ||| + words.runbook(['KvmVmExitStorm']),
      [p.query(of_vm('kvm_vm:exits:rate5m', by=['reason']), '{{reason}}')],
      'si:/s',
      { stack: true }
    ),
    p.timeseries(
      'Exits for each second of CPU',
      |||
        VM exits over its vCPU time. Some thousands are usual for I/O. Over 50,000 handling them takes the time: a
        device, a timer or a polling loop.
      ||| + words.runbook(['KvmVmExitStorm']),
      [p.query(of_vm('kvm_vm:exits_per_cpu_second:rate5m'), 'exits per second of CPU')],
      'short',
      { limits: [[limits.exits_per_cpu_second, p.red]] }
    ),
    p.timeseries(
      'Time beside a busy sibling',
      |||
        SMT: share of its time on a core whose other thread ran a vCPU, too. Low is good. Over 30 % while cores of its
        nodes are idle, pin it apart; on a full host it is normal.
      ||| + words.runbook(['KvmVmSmtContention']),
      [p.query(of_vm('kvm_vm:smt_shared_ratio:rate5m'), 'beside a busy sibling')],
      'percentunit',
      { decimals: 0, limits: [[limits.smt_shared, p.red]] }
    ),
  ];

  local speed_and_threads = [
    p.timeseries(
      'Frequency and heat',
      |||
        Frequency of the cores it runs on over their base frequency, and the share of time their package was too hot.
        At or above 100 %, and 0, are good.
      ||| + words.runbook(['KvmPackageThrottled']),
      [
        p.query(of_vm('kvm_vm:frequency_ratio:rate5m'), 'frequency over base'),
        p.query(of_vm('kvm_vm:package_throttled_ratio:rate5m'), 'package too hot'),
      ],
      'percentunit',
      { decimals: 0, overrides: [p.override('package too hot', { color: p.color(p.red) })] }
    ),
    p.timeseries(
      'Threads by role',
      |||
        Cores' worth of time of its threads, by role: vCPUs, I/O threads, vhost workers, and the emulator for the
        rest. A busy emulator or I/O thread is the VM's own I/O; check whether it shares cores with its vCPUs.
      ||| + words.runbook(['KvmVcpuStarved', 'KvmCoreOvercommitted']),
      [p.query(of_vm('kvm_vm:thread_time:rate5m', by=['role']), '{{role}}')],
      'suffix:cores',
      { stack: true, decimals: 2 }
    ),
    p.timeseries(
      'Delay of threads by role',
      |||
        Share of the time its threads want a core in which they wait, by role. A waiting I/O thread delays the guest's
        disks and network: pin it apart from the vCPUs. Below 5 % is good.
      ||| + words.runbook(['KvmVcpuStarved', 'KvmVmCpuDelayHigh']),
      [p.query(of_vm('kvm_vm:thread_delay_ratio:rate5m', by=['role']), '{{role}}')],
      'percentunit',
      { decimals: 1, limits: [[limits.delay, p.orange]] }
    ),
  ];

  {
    misses: misses,
    waiting: waiting,
    numa: [nodes, devices_and_moves, traffic],
    cache: [cache, bandwidth],
    exits: [exits, speed_and_threads],
  }
