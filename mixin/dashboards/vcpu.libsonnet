// KVM / vCPU: the vCPUs of one VM, compared with each other.
local layout = import 'lib/layout.libsonnet';
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  // PromQL cannot make a number of a label, so each node is queried; those of larger hosts are one value.
  local nodes = 8;

  // What hosts have of the vCPUs, as one series for each vCPU before and after a live migration.
  local of_vcpus(metric, more='', by=['vcpu']) = s.moved('%s{%s%s}' % [metric, s.vcpu, more], by);

  local siblings =
    local every = 'kvm_vcpu_placement_info{%s}' % s.vm;
    local of_vcpu(metric, more='') = p.query(|||
      %(every)s
        * on (%(vcpu)s) group_left () max by (%(vcpu)s) (%(metric)s{%(vm)s%(more)s})
    ||| % { every: every, vcpu: s.on(['vm', 'vcpu']), metric: metric, vm: s.vm, more: more });
    local core = |||
      %s
        * on (%s) group_left () %s
    ||| % [every, s.on(['package', 'core']), s.core_demand(s.hosts)];
    t.table(
      'Siblings compared',
      |||
        All vCPUs of the VM, whatever is chosen above: where each is now, the whole demand of its core, its time, its
        delay, and the delay of its siblings together. A vCPU that waits over 10 % and three times as long as its
        siblings is starved: a busy thread shares its core.
      ||| + words.runbook(['KvmVcpuStarved', 'KvmVmCpuDelayHigh']),
      [
        p.query(core),
        of_vcpu('kvm_vcpu:time:rate5m'),
        of_vcpu('kvm_vcpu:delay_ratio:rate5m'),
        of_vcpu('kvm_vcpu:delay_ratio_siblings:rate5m'),
        of_vcpu('kvm_vcpu:cpi:rate5m', ',mode="guest"'),
        of_vcpu('kvm_vcpu:cache_mpki:rate5m', ',mode="guest"'),
      ],
      [
        t.column('vcpu', 'vCPU', {
          width: 65,
          links: [frame.to_cell('vcpu', ['vcpu'], kept=frame.host_names + ['vm'])],
        }),
        t.column('numa_node', 'Node', { width: 60 }),
        t.column('package', 'Package', { width: 75 }),
        t.column('core', 'Core', { width: 60 }),
        t.column('cpu', 'CPU', { width: 60 }),
        t.core_demand('Value #A', 125),
        t.column('Value #B', 'Time', {
          width: 120,
          unit: 'percentunit',
          decimals: 0,
          cell: 'gauge',
          limits: p.steps([], base=p.blue),
          maximum: 1,
        }),
        t.column('Value #C', 'Delay', {
          width: 110,
          unit: 'percentunit',
          decimals: 1,
          cell: 'gauge',
          limits: p.steps([[limits.delay, p.orange], [limits.delay_critical, p.red]]),
          maximum: 0.5,
        }),
        t.column('Value #D', "Siblings' delay", { width: 130, unit: 'percentunit', decimals: 1 }),
        t.column('Value #E', 'CPI', { width: 70, unit: 'none', decimals: 2 }),
        t.column('Value #F', 'MPKI', { unit: 'none', decimals: 1 }),
      ],
      { width: 14, height: 10, sort: ['Delay', true], none: 'The VM does not run here now' }
    );

  local affinity = t.table(
    'Where they may run',
    |||
      CPUs and NUMA nodes that each chosen vCPU may use. One CPU: pinned, it cannot get away from a busy neighbor.
      Several nodes: the scheduler may move it away from its memory.
    ||| + words.runbook(['KvmVcpuStarved', 'KvmVmSpreadOverNodes']),
    [
      p.query('max by (vcpu) (kvm_vcpu_affinity_cpus{%s})' % s.vcpu),
      p.query('max by (vcpu) (kvm_vcpu_affinity_numa_nodes{%s})' % s.vcpu),
    ],
    [
      t.column('vcpu', 'vCPU', { width: 80 }),
      t.column('Value #A', 'CPUs', { unit: 'none', decimals: 0 }),
      t.column('Value #B', 'Nodes', { unit: 'none', decimals: 0 }),
    ],
    { width: 4, height: 10, sort: ['vCPU', false] }
  );

  local starved =
    local most = 'topk(3, max_over_time((%s)[$__range:$__interval] @ end()))' % of_vcpus('kvm_vcpu:delay_ratio:rate5m');
    local of_worst(metric) = |||
      %s
        and on (vcpu) %s
    ||| % [of_vcpus(metric), most];
    p.timeseries(
      'Starved: delay against its siblings',
      |||
        Delay of the worst chosen vCPUs (lines), and of their siblings together (dashed). Lines close together: the
        whole VM waits. One line far above: that vCPU alone is starved, by a thread that shares its core.
      ||| + words.runbook(['KvmVcpuStarved']),
      [
        p.query(of_worst('kvm_vcpu:delay_ratio:rate5m'), 'vCPU {{vcpu}}'),
        p.query(of_worst('kvm_vcpu:delay_ratio_siblings:rate5m'), 'siblings of vCPU {{vcpu}}'),
      ],
      'percentunit',
      {
        width: 6,
        height: 10,
        limits: [[limits.starved, p.red]],
        decimals: 1,
        overrides: [p.override_re('siblings.*', { 'custom.lineStyle': p.dashed, 'custom.fillOpacity': 0 })],
      }
    );

  // The number of the node as a value.
  local node =
    local of_node(number, match) = '%d * kvm_vcpu_placement_info{%s,numa_node%s}' % [number, s.vcpu, match];
    local known = [of_node(number, '="%d"' % number) for number in std.range(0, nodes - 1)];
    local rest = of_node(nodes, '!~"|[0-%d]"' % (nodes - 1));
    'max by (padded_vcpu) (%s)' % s.padded(std.join('\nor ', known + [rest]), 'padded_vcpu', 'vcpu');

  local where =
    local colors = [p.blue, p.orange, 'purple', 'green', 'yellow', 'red', 'light-blue', 'light-orange', 'text'];
    local names = p.says([
      [number, if number < nodes then 'node %d' % number else 'node %d or above' % nodes, colors[number]]
      for number in std.range(0, nodes)
    ]);
    local cores = 'count by (%s) (kvm_vcpu_placement_info{%s})' % [s.on(['numa_node', 'package', 'core']), s.vcpu];
    [
      p.state_timeline(
        'NUMA node over time',
        |||
          Node of each chosen vCPU. One color all along is good. A vCPU with another color than its siblings is away
          from their data, and perhaps from its memory.
        ||| + words.runbook(['KvmVmSpreadOverNodes', 'KvmVmMemoryRemote']),
        [p.query(node, 'vCPU {{padded_vcpu}}')],
        'none',
        { width: 12, height: 10, mappings: [names], legend: true }
      ),
      p.heatmap(
        'Cores over time (node, package, core)',
        |||
          Cores of the chosen vCPUs, one row per core; the color is how many vCPUs were on the core at once. Straight
          lines are pinned or quiet vCPUs. Two vCPUs on one core take turns, or share it as siblings. Choose one vCPU
          above to follow it.
        ||| + words.runbook(['KvmCoreOvercommitted', 'KvmVmSmtContention']),
        [p.query(s.by_core(cores), s.place)],
        'none',
        { width: 12, height: 10, low: 0, high: 4, scheme: 'Oranges', zeros: false, decimals: 0 }
      ),
    ];

  local lines(title, description, expr, unit, options={}) =
    p.timeseries(title, description, [p.query(expr, 'vCPU {{vcpu}}')], unit, { height: 8 } + options);

  local scheduling = [
    lines(
      'Time on a core',
      |||
        Share of each second that the vCPU is on a core, in the guest or working for it. 100 % is a vCPU that never
        idles: the guest's own work, or a loop in it.
      |||,
      of_vcpus('kvm_vcpu:time:rate5m'),
      'percentunit',
      { maximum: 1, decimals: 0 }
    ),
    lines(
      'Delay of each vCPU',
      |||
        Share of the time the vCPU wants a core in which it waits. Below 5 % is good. Over 20 % is critical. "Siblings
        compared" and KVM / Host show who shares its core.
      ||| + words.runbook(['KvmVmCpuDelayHigh', 'KvmVmCpuDelayCritical']),
      of_vcpus('kvm_vcpu:delay_ratio:rate5m'),
      'percentunit',
      { limits: [[limits.delay, p.orange], [limits.delay_critical, p.red]], decimals: 1 }
    ),
    lines(
      'Migrations',
      |||
        Moves per second to another CPU. Each leaves warm caches behind. A few are harmless. Many with delay: the vCPU
        looks for an idle core and finds none.
      ||| + words.runbook(['KvmVmCpuDelayHigh']),
      of_vcpus('kvm_vcpu:migrations:rate5m'),
      'si:/s',
      { decimals: 2 }
    ),
  ];

  local counters = [
    lines(
      'Cycles per instruction, guest',
      |||
        CPI inside the guest. What is normal depends on the program. A vCPU above its siblings runs on a slower core,
        or beside a busy sibling.
      ||| + words.runbook(['KvmVmCpiAboveItsWeek', 'KvmVmCpiAbovePeers']),
      of_vcpus('kvm_vcpu:cpi:rate5m', ',mode="guest"'),
      'none',
      { decimals: 2 }
    ),
    lines(
      'Cache misses, guest',
      |||
        Misses per 1000 guest instructions. A rise on all vCPUs at once is a neighbor in the cache. A rise on one vCPU
        is its own work, or its core.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      of_vcpus('kvm_vcpu:cache_mpki:rate5m', ',mode="guest"'),
      'none',
      { decimals: 1, limits: [[limits.cache_mpki, p.red]] }
    ),
    lines(
      'Exits of each vCPU',
      |||
        VM exits per second. A vCPU far above the others handles the interrupts of a device.
      ||| + words.runbook(['KvmVmExitStorm']),
      of_vcpus('kvm_vcpu:exits:rate5m'),
      'si:/s'
    ),
  ];

  local quality = [
    lines(
      'Cycles per instruction, host',
      |||
        CPI of KVM and the VMM while they work for the vCPU. It is usually higher than the guest's. A rise with many
        exits is the cost of handling them.
      |||,
      of_vcpus('kvm_vcpu:cpi:rate5m', ',mode="host"'),
      'none',
      { decimals: 2 }
    ),
    p.timeseries(
      'Counters counted (PMU quality)',
      |||
        Share of the vCPU's time in which each group of hardware counters counted. 100 % is good. Below 50 % the
        values are estimates: count fewer events, or find the other user of the PMU.
      ||| + words.runbook(['KvmPmuMultiplexed', 'KvmPmuHostOnly']),
      [p.query('min by (group) (kvm_vcpu:pmu_running_ratio:rate5m{%s})' % s.vcpu, '{{group}}, worst vCPU')],
      'percentunit',
      { maximum: 1, decimals: 0 }
    ),
    p.stat(
      'What the PMU allows',
      |||
        Hardware counting that this host allows: full (guest and host), host_only, software, or off. With host_only
        the guest's CPI and misses are unknown.
      ||| + words.runbook(['KvmPmuHostOnly']),
      [p.query('kvm_exporter_pmu_mode{%s} == 1' % s.hosts, '{{mode}} {{reason}}')],
      'none',
      { width: 8, height: 8, text: 'name', graph: 'none', none: 'unknown' }
    ),
  ];

  frame.dashboard('vcpu', 'The vCPUs of one VM: time, waits, counters and places of each, compared.', [
    [siblings, affinity, starved],
    layout.row('Where they run', [where]),
    layout.row('Scheduling', [scheduling]),
    layout.row('Counters', [counters, quality]),
  ])
