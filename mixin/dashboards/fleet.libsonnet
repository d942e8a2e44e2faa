// KVM / Fleet: which host or VM is in trouble.
local json = import 'lib/json.libsonnet';
local layout = import 'lib/layout.libsonnet';
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  local by_host = s.on();
  local by_vm = s.on(['vm']);

  local firing = 'ALERTS{alertname=~"Kvm.*",alertstate="firing",%s}' % s.hosts;

  // Scores: 0.8 is near, 1 is where the alert begins.
  local score = p.steps([[0.8, p.yellow], [1, p.red]], base='transparent');
  local hot = limits.package_throttled;
  local host_link = frame.to_cell('host', frame.host_names);
  local vm_link = frame.to_cell('vm', frame.host_names + ['vm']);
  local vcpu_link = frame.to_cell('vcpu', frame.host_names + ['vm', 'vcpu']);
  // Labels that links of a row need.
  local hidden = [t.hidden(label) for label in s.host_labels if label != 'instance'];

  local letter(at) = 'Value #' + std.char(65 + at);

  local glance = [
    p.stat(
      'Hosts up',
      |||
        Exporters that Prometheus can scrape. Good: as many as you have hosts. The VMs of a missing host are not
        watched: check the host, its exporter and the network.
      ||| + words.runbook(['KvmExporterDown']),
      [p.query('sum(up{%s})' % s.up_hosts)],
      'none',
      { limits: p.steps([[1, p.green]], base=p.red), graph: 'none', none: '0' }
    ),
    p.stat(
      'Hosts down',
      |||
        Exporters that Prometheus cannot scrape. Good: 0.
      ||| + words.runbook(['KvmExporterDown']),
      [p.query('count(up{%s} == 0) or vector(0)' % s.up_hosts)],
      'none',
      { limits: p.steps([[1, p.red]]), graph: 'none' }
    ),
    p.stat(
      'Alerts firing',
      'Firing alerts of these hosts, of every severity. Good: 0. The table below lists them.',
      [p.query('count(%s) or vector(0)' % firing)],
      'none',
      { limits: p.steps([[1, p.orange]]) }
    ),
    p.stat(
      'VMs',
      |||
        VMs that the exporters watch. After a sudden drop, check "Hosts down" and run `vcpu-exporter check` on the
        host.
      |||,
      [p.query('count(kvm_vm_info{%s})' % s.hosts)],
      'none',
      { none: '0' }
    ),
    p.stat('vCPUs', 'vCPUs of all VMs.', [p.query('sum(kvm_vm_vcpus{%s})' % s.hosts)], 'none', { none: '0' }),
    p.stat(
      'VMs in trouble',
      |||
        VMs with a score of 1 or more: the observed value is at or over the limit of its alert. Good: 0. The table
        below names the VMs.
      ||| + words.runbook_of_cause,
      [p.query('count(max by (%s) (kvm_vm:trouble:score{%s}) >= 1) or vector(0)' % [by_vm, s.hosts])],
      'none',
      { limits: p.steps([[1, p.orange]]) }
    ),
    p.stat(
      'Highest demand',
      |||
        CPUs in use on the busiest host, and those that vCPUs wait for, over its online CPUs. Below 80 % there is
        room. Over 100 % the host is full: move VMs away.
      ||| + words.runbook(['KvmHostCpuSaturated']),
      [p.query('max(kvm_host:cpu_demand:ratio{%s})' % s.hosts)],
      'percentunit',
      { decimals: 0, limits: p.steps([[0.8, p.yellow], [1, p.red]]), none: 'unknown' }
    ),
    p.stat(
      'Packages throttled',
      |||
        Packages (sockets) that were too hot for more than 5 % of the last five minutes. Good: 0. Check fans, inlet
        air and power limits.
      ||| + words.runbook(['KvmPackageThrottled']),
      [p.query('count(kvm_host_package:throttled_ratio:rate5m{%s} > %s) or vector(0)' % [s.hosts, json.number(hot)])],
      'none',
      { limits: p.steps([[1, p.red]]), graph: 'none' }
    ),
  ];

  local alerts =
    // As numbers, so that the worst come first.
    local by_severity = std.join('\nor ', [
      '%d * %s,severity="%s"}' % [severity[0], std.rstripChars(firing, '}'), severity[1]]
      for severity in [[3, 'critical'], [2, 'warning'], [1, 'info']]
    ]);
    local severities = p.says([[3, 'critical', p.red], [2, 'warning', p.orange], [1, 'info', p.blue]]);
    t.table(
      'Firing alerts',
      |||
        Alerts that fire now, the worst first. Good: none. Click an alert to open its runbook, or a VM, vCPU or host
        to open its dashboard.
      |||,
      [p.query(by_severity)],
      [
        t.column('Value', 'Severity', { width: 90, cell: 'color-text', mappings: [severities], align: 'left' }),
        t.column('alertname', 'Alert', {
          links: [frame.to_runbook('__data.fields.instance', '__data.fields.alertname')],
        }),
        t.column('instance', 'Host', { links: [host_link] }),
        t.column('vm', 'VM', { width: 100, links: [vm_link] }),
        t.column('vcpu', 'vCPU', { width: 60, links: [vcpu_link] }),
        t.column('package', 'Package', { width: 75 }),
        t.column('core', 'Core', { width: 60 }),
      ] + hidden,
      { width: 12, height: 9, sort: ['Severity', true], none: 'No alert fires' }
    );

  local hosts =
    local max(metric) = p.query('max by (%s) (%s{%s})' % [by_host, metric, s.hosts]);
    local up = p.says([['1', 'up', p.green], ['0', 'DOWN', p.red]]);
    t.table(
      'Hosts at a glance',
      |||
        One host per line: whether its exporter answers, VMs, vCPUs, vCPUs per online CPU (overcommit), CPU demand,
        the share of the wanted time in which vCPUs wait beside idle CPUs (imbalance), time a package was too hot, and
        the worst score of its VMs. Demand below 80 % and imbalance below 5 % are good. Imbalance means that pinning
        makes vCPUs wait.
      ||| + words.runbook(['KvmExporterDown', 'KvmHostCpuSaturated', 'KvmHostImbalanced', 'KvmPackageThrottled']),
      [
        p.query('max by (%s) (up{%s})' % [by_host, s.up_hosts]),
        p.query('count by (%s) (kvm_vm_info{%s})' % [by_host, s.hosts]),
        p.query('sum by (%s) (kvm_vm_vcpus{%s})' % [by_host, s.hosts]),
        max('kvm_host:overcommit:ratio'),
        max('kvm_host:cpu_demand:ratio'),
        max('kvm_host:imbalance:ratio'),
        max('kvm_host_package:throttled_ratio:rate5m'),
        max('kvm_vm:trouble:score'),
      ],
      [
        t.column('instance', 'Host', { links: [host_link] }),
        t.column(letter(0), 'Exporter', { width: 80, mappings: [up], cell: 'color-text' }),
        t.column(letter(1), 'VMs', { width: 60, unit: 'none' }),
        t.column(letter(2), 'vCPUs', { width: 65, unit: 'none' }),
        t.column(letter(3), 'Overcommit', { width: 110, unit: 'none', decimals: 2 }),
        t.column(letter(4), 'Demand', {
          width: 110,
          unit: 'percentunit',
          decimals: 0,
          cell: 'gauge',
          maximum: 1.5,
          limits: p.steps([[0.8, p.yellow], [1, p.red]]),
        }),
        t.column(letter(5), 'Imbalance', { width: 90, unit: 'percentunit', decimals: 0 }),
        t.column(
          letter(6),
          'Too hot',
          { width: 75, unit: 'percentunit', decimals: 0, cell: 'color-text', limits: p.steps([[hot, p.red]]) }
        ),
        t.column(
          letter(7),
          'Worst VM',
          { width: 85, unit: 'none', decimals: 1, cell: 'color-background', limits: score }
        ),
      ] + hidden,
      {
        width: 12,
        height: 9,
        sort: ['Worst VM', true],
        none: 'No exporter found: check that the data source has kvm_exporter_build_info',
      }
    );

  local trouble =
    local worst = 'topk(25, max by (%s) (kvm_vm:trouble:score{%s}))' % [by_vm, s.hosts];
    local queries = [p.query(worst)] + [
      p.query(|||
        max by (%s) (kvm_vm:trouble:score{%s,cause="%s"})
          and on (%s) %s
      ||| % [by_vm, s.hosts, cause.cause, by_vm, worst])
      for cause in words.causes
    ] + [
      // VMs that take what others lack are listed, too, when they are in no trouble themselves.
      p.query('topk(10, max by (%s) (kvm_vm:pushes:score{%s}) >= 1)' % [by_vm, s.hosts]),
    ];
    local of_cause(at) = t.column(
      letter(at + 1),
      words.causes[at].column,
      { unit: 'none', decimals: 1, cell: 'color-background', limits: score, align: 'center' }
    );
    t.table(
      'VMs with the highest trouble score, by cause',
      |||
        The 25 worst VMs. A score is the observed value over the limit of the cause's alert: 1 or more is trouble, 0.8
        is near, empty is unknown or does not apply. The CPI columns are symptoms; look for a cause in the others.
        Pushes others: the VM takes the CPU or the cache that others lack. Click a VM to see why it is slow.
      ||| + words.runbook([cause.runbook for cause in words.causes]),
      queries,
      [
        t.column('vm', 'VM', { width: 150, links: [vm_link] }),
        t.column('instance', 'Host', { width: 160, links: [host_link] }),
        t.column(letter(0), 'Worst', { width: 75, unit: 'none', decimals: 1, cell: 'color-background', limits: score }),
      ] + [of_cause(at) for at in std.range(0, std.length(words.causes) - 1)] + [
        t.column(letter(std.length(words.causes) + 1), 'Pushes others', {
          width: 110,
          unit: 'none',
          decimals: 1,
          cell: 'color-background',
          limits: score,
          align: 'center',
        }),
      ] + hidden,
      {
        width: 24,
        height: 11,
        sort: ['Worst', true],
        none: 'No VM has a score: load the rules of alerts/recording.yaml',
      }
    );

  local find = t.table(
    'All VMs',
    |||
      Every VM with what its manager knows about it. Filter a column to find a VM by name, display name, project,
      namespace or uuid; click the VM to open it.
    |||,
    [p.query('kvm_vm_info{%s}' % s.hosts)],
    [
      t.column('vm', 'VM', { links: [vm_link] }),
      t.column('openstack_name', 'Display name'),
      t.column('openstack_project', 'Project'),
      t.column('openstack_flavor', 'Flavor'),
      t.column('kubevirt_namespace', 'Namespace'),
      t.column('proxmox_id', 'Proxmox id', { width: 100 }),
      t.column('uuid', 'uuid', { width: 320 }),
      t.column('manager', 'Manager', { width: 110 }),
      t.column('instance', 'Host', { links: [host_link] }),
    ] + hidden,
    { width: 24, height: 12, sort: ['VM', false], filterable: true, none: 'No VM found' }
  );

  local top(title, description, expr, column, options) = t.table(
    title,
    description,
    [p.query('topk(15, %s)' % expr)],
    [t.column('vm', 'VM', { links: [vm_link] })]
    + std.get(options, 'extra', [])
    + [
      t.column('instance', 'Host', { links: [host_link] }),
      t.column('Value', column, { width: 140, cell: 'gauge' } + options.value),
    ] + hidden,
    { width: 8, height: 10, sort: [column, true] }
  );

  local tops = [
    top(
      'Longest waits',
      |||
        vCPUs that wait longest for a core, as a share of the time they want one. Below 5 % is good. Over 20 % the
        guest stutters.
      ||| + words.runbook(['KvmVmCpuDelayHigh', 'KvmVmCpuDelayCritical']),
      'kvm_vcpu:delay_ratio:rate5m{%(hosts)s} and kvm_vcpu:demand:rate5m{%(hosts)s} >= %(floor)s'
      % { hosts: s.hosts, floor: json.number(limits.vcpu_wanted_cores) },
      'Delay',
      {
        extra: [t.column('vcpu', 'vCPU', { width: 55, links: [vcpu_link] })],
        value: {
          unit: 'percentunit',
          decimals: 1,
          limits: p.steps([[limits.delay, p.orange], [limits.delay_critical, p.red]]),
          maximum: 0.5,
        },
      }
    ),
    top(
      'Most cycles per instruction',
      |||
        Guests with the highest CPI, of those that use a quarter of a core or more. What is normal depends on the
        program: compare a VM with its own week and its peers on KVM / VM.
      ||| + words.runbook(['KvmVmCpiAboveItsWeek', 'KvmVmCpiAbovePeers']),
      'kvm_vm:cpi_busy:rate5m{%s}' % s.hosts,
      'CPI',
      { value: { unit: 'none', decimals: 2, limits: p.steps([], base=p.blue), maximum: 5 } }
    ),
    top(
      'Most cache misses',
      |||
        Guests with the most cache misses per 1000 instructions (last level on Intel, L2 on AMD). The alert fires over
        10 and three times the VM's own hour before. The VM at the top may be the one that disturbs the others.
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      'kvm_vm:cache_mpki:rate5m{%s,mode="guest"}' % s.hosts,
      'MPKI',
      { value: { unit: 'none', decimals: 1, limits: p.steps([[limits.cache_mpki, p.orange]]), maximum: 30 } }
    ),
  ];

  local over_time = [
    p.timeseries(
      'Demand of each host',
      |||
        CPUs in use by VMs and the host, and those that vCPUs wait for, over the online CPUs. Below 80 % there is
        room. Over 100 % the host is full: place no more VMs there.
      ||| + words.runbook(['KvmHostCpuSaturated', 'KvmHostImbalanced']),
      [p.query('kvm_host:cpu_demand:ratio{%s}' % s.hosts, '{{instance}}')],
      'percentunit',
      { limits: [[1, p.red]], decimals: 0 }
    ),
    p.timeseries(
      'VMs in trouble, by cause',
      |||
        VMs with a score of 1 or more, by cause. Good: empty. Many VMs with one cause point at the host, not at the
        VM.
      ||| + words.runbook_of_cause,
      [p.query('count by (cause) (kvm_vm:trouble:score{%s} >= 1)' % s.hosts, '{{cause}}')],
      'none',
      { stack: true, decimals: 0 }
    ),
    p.timeseries(
      'Imbalance of each host',
      |||
        Share of the time vCPUs want to run in which they wait while other CPUs of the host are idle. 0 is good. Over
        5 % pinning or NUMA placement keeps vCPUs from idle CPUs.
      ||| + words.runbook(['KvmHostImbalanced']),
      [p.query('kvm_host:imbalance:ratio{%s}' % s.hosts, '{{instance}}')],
      'percentunit',
      { decimals: 0 }
    ),
  ];

  local exporters = [
    p.timeseries(
      'Exporter CPU by host',
      |||
        Cores used by the exporter process, the five highest. A tenth of a core is usual on a large host. A longer
        `sampling.tick` lowers it.
      |||,
      [p.query(s.worst(5, by_host, 'kvm_exporter:cpu:rate5m{%s}' % s.hosts), '{{instance}}')],
      'suffix:cores',
      { width: 6, decimals: 3 }
    ),
    p.timeseries(
      'Series by host',
      |||
        Series in the exposition of each exporter, the five highest. `labels.placement` bounds them; at
        `limits.max_series` the exporter drops detail.
      ||| + words.runbook(['KvmExporterSeriesDropped']),
      [p.query(s.worst(5, by_host, 'kvm_exporter_series{%s}' % s.hosts), '{{instance}}')],
      'short',
      { width: 6 }
    ),
    p.timeseries(
      'Visibility gaps by host',
      |||
        Processes or vCPUs that the inventory could not read, the five highest. Good: 0. Run `vcpu-exporter check` on
        the host: it lists the gaps and how to fix them.
      |||,
      [p.query(s.worst(5, by_host, 'kvm_exporter_blind_spots{%s}' % s.hosts), '{{instance}}')],
      'none',
      { width: 6, decimals: 0 }
    ),
    p.timeseries(
      'Machine checks and memory errors',
      |||
        Lines about machine checks and memory errors in the kernel log of each host, in the last hour. Good: none.
        Plan to replace the part, and move VMs away if the errors are not corrected.
      |||,
      [
        p.query(
          'kvm_host:kernel_log_lines:increase1h{%s,kind=~"machine_check|memory_.*"} > 0' % s.hosts,
          '{{instance}} {{kind}}'
        ),
      ],
      'none',
      { width: 6, decimals: 0, none: 'No machine check' }
    ),
  ];

  frame.dashboard(
    'fleet',
    'Which KVM host or VM is in trouble, and why. Start here.',
    [
      glance,
      [alerts, hosts],
      trouble,
      layout.row('Find a VM', [find]),
      layout.row('Top lists', [tops]),
      layout.row('Over time', [over_time]),
      layout.row('Exporters and hardware errors', [exporters]),
    ]
  )
