// KVM / Host: the topology of one host and who runs where.
local json = import 'lib/json.libsonnet';
local layout = import 'lib/layout.libsonnet';
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  local selector = { host: s.host, core: s.on(['package', 'core']), vm: s.on(['vm']), vcpu: s.on(['vm', 'vcpu']) };
  local vm_cell = frame.to_cell('vm', ['vm'], kept=frame.host_names);
  local vcpu_cell = frame.to_cell('vcpu', ['vm', 'vcpu'], kept=frame.host_names);
  local vm_series = frame.to_series('vm', ['vm'], kept=frame.host_names);
  local tables = (import 'host_tables.libsonnet')(config);
  local rows = (import 'host_rows.libsonnet')(config);

  local glance = [
    p.stat(
      'Exporter',
      |||
        Whether Prometheus can scrape the exporter of this host. While it is down, nothing on this page is new.
      ||| + words.runbook(['KvmExporterDown']),
      [p.query('max(up{%s})' % s.up_host)],
      'none',
      {
        limits: p.steps([[1, p.green]], base=p.red),
        graph: 'none',
        mappings: [p.says([['1', 'up', p.green], ['0', 'DOWN', p.red]])],
      }
    ),
    p.stat(
      'Age of the sample',
      |||
        Age of the newest sample at the scrape. A few seconds are good. Over %s s the sampler is stuck or starved, and
        totals stand still.
      ||| % json.number(limits.sample_age_seconds) + words.runbook(['KvmExporterSampleTooOld']),
      [p.query('max(kvm_exporter_sample_age_seconds{%(host)s})' % selector)],
      's',
      { limits: p.steps([[5, p.yellow], [limits.sample_age_seconds, p.red]]), decimals: 1 }
    ),
    p.stat('VMs', 'VMs on this host now.', [p.query('count(kvm_vm_info{%(host)s})' % selector)], 'none', { none: '0' }),
    p.stat(
      'vCPUs per CPU',
      |||
        Overcommit: vCPUs per online CPU. It is a plan, not a load: read it with the demand. Over 1, VMs disturb each
        other when all are busy.
      |||,
      [p.query('max(kvm_host:overcommit:ratio{%(host)s})' % selector)],
      'none',
      { decimals: 2 }
    ),
    p.stat(
      'Demand',
      |||
        CPUs in use by VMs and the host, and those that vCPUs wait for, over the online CPUs. Below 80 % there is
        room. Over 100 % the host is full: move VMs away.
      ||| + words.runbook(['KvmHostCpuSaturated']),
      [p.query('max(kvm_host:cpu_demand:ratio{%(host)s})' % selector)],
      'percentunit',
      { decimals: 0, limits: p.steps([[0.8, p.yellow], [1, p.red]]) }
    ),
    p.stat(
      'Imbalance',
      |||
        Share of the time vCPUs want to run in which they wait while other CPUs are idle. 0 is good. Over 5 % pinning
        or NUMA placement keeps vCPUs from idle CPUs.
      ||| + words.runbook(['KvmHostImbalanced']),
      [p.query('max(kvm_host:imbalance:ratio{%(host)s})' % selector)],
      'percentunit',
      { decimals: 0, limits: p.steps([[limits.imbalance, p.orange]]) }
    ),
    p.stat(
      'Too hot',
      |||
        Share of the last five minutes in which the hottest package was too hot and slowed its cores down. Good: 0.
        Over 5 %, check fans, inlet air and power limits.
      ||| + words.runbook(['KvmPackageThrottled']),
      [p.query('max(kvm_host_package:throttled_ratio:rate5m{%(host)s})' % selector)],
      'percentunit',
      { decimals: 0, limits: p.steps([[limits.package_throttled, p.red]]), none: 'unknown' }
    ),
    p.stat(
      'Counters counted',
      |||
        Share of the time in which hardware counters counted. 100 % is good. Below 50 % they are multiplexed, and CPI
        and misses are estimates: count fewer events, or find the other user of the PMU.
      ||| + words.runbook(['KvmPmuMultiplexed', 'KvmPmuHostOnly']),
      [p.query('max(kvm_host:pmu_running_ratio:rate5m{%(host)s})' % selector)],
      'percentunit',
      {
        decimals: 0,
        limits: p.steps([[limits.pmu_running, p.yellow], [0.95, p.green]], base=p.red),
        none: 'no PMU',
      }
    ),
  ];

  local cores =
    local demand = |||
      kvm_host_core:demand:rate5m{%(host)s}
        / on (%(core)s, numa_node) kvm_host_core:threads:count{%(host)s}
    ||| % selector;
    p.heatmap(
      'Demand of each core over time (node, package, core)',
      |||
        One row per core, named by NUMA node, package and core. The color is the demand per thread of the core: time of
        vCPUs and the VMs' other threads on it or waiting for it. Green is room, yellow is busy, from %s on (red) threads
        wait. Red rows beside green ones of the same node: spread the VMs, see "Who runs there now".
      ||| % json.number(limits.core_demand) + words.runbook(['KvmCoreOvercommitted']),
      [p.query(s.by_core(std.rstripChars(demand, '\n')), s.place)],
      'none',
      { width: 13, height: 22, low: 0, high: 1.5 }
    );

  local who =
    local of_vcpu(expr) = |||
      kvm_vcpu_placement_info{%s}
        * on (%s) group_left () max by (%s) (%s)
    ||| % [s.host, selector.vcpu, selector.vcpu, expr % selector];
    local demand = |||
      kvm_vcpu_placement_info{%s}
        * on (%s) group_left () %s
    ||| % [s.host, selector.core, s.core_demand(s.host)];
    t.table(
      'Who runs there now',
      |||
        Each vCPU with the core where it was found last, the whole demand of that core, the share of time the vCPU
        waits, and its CPI. The busiest core comes first. A core with two threads serves a demand of 2. Click a VM or
        vCPU to open it.
      ||| + words.runbook(['KvmCoreOvercommitted', 'KvmVmCpuDelayHigh', 'KvmVcpuStarved']),
      [
        p.query(demand),
        p.query(of_vcpu('kvm_vcpu:delay_ratio:rate5m{%(host)s}')),
        p.query(of_vcpu('kvm_vcpu:cpi:rate5m{%(host)s,mode="guest"}')),
      ],
      [
        t.column('numa_node', 'Node', { width: 55 }),
        t.column('package', 'Pkg', { width: 50 }),
        t.column('core', 'Core', { width: 55 }),
        t.column('cpu', 'CPU', { width: 55 }),
        t.column('vm', 'VM', { links: [vm_cell] }),
        t.column('vcpu', 'vCPU', { width: 60, links: [vcpu_cell] }),
        t.core_demand('Value #A', 115),
        t.column('Value #B', 'Delay', {
          width: 75,
          unit: 'percentunit',
          decimals: 1,
          cell: 'color-text',
          limits: p.steps([[limits.delay, p.orange], [limits.delay_critical, p.red]]),
        }),
        t.column('Value #C', 'CPI', { width: 60, unit: 'none', decimals: 2 }),
      ],
      { width: 11, height: 22, sort: ['Core demand', true], none: 'No vCPU runs here', filterable: true }
    );

  local troubles = p.state_timeline(
    'VMs in trouble here',
    |||
      The worst score of each VM that is near trouble: yellow from 0.8 of an alert's limit on, red from 1 on. Click a
      VM to see the cause.
    ||| + words.runbook_of_cause,
    [p.query('max by (%(vm)s) (kvm_vm:trouble:score{%(host)s}) >= 0.8' % selector, '{{vm}}')],
    'none',
    {
      width: 24,
      height: 9,
      limits: p.steps([[0.8, p.yellow], [1, p.red]]),
      links: [vm_series],
      legend: false,
    }
  );

  frame.dashboard(
    'host',
    'One KVM host: its nodes, packages and cores, who runs there, and what the VMs share.',
    [
      glance,
      [cores, who],
      troubles,
      layout.row('Load', rows.load),
      layout.row('What VMs share: caches, bandwidth, threads of cores', rows.sharing),
      layout.row('NUMA and huge pages', rows.numa),
      layout.row('Frequency and heat', [rows.speed]),
      layout.row('The host: topology, kernel, hardware errors', [
        [{ column: [tables.topology, tables.kernel] }, tables.sources],
        tables.errors,
      ]),
      layout.row('Cost of the exporter', rows.cost),
    ]
  )
