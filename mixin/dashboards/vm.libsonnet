// KVM / VM: why one VM is slow, on one page and one time axis.
local layout = import 'lib/layout.libsonnet';
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;
  local verdict = (import 'vm_verdict.libsonnet')(config);
  local rows = (import 'vm_rows.libsonnet')(config);
  local vcpu_series = frame.to_series('vcpu', ['vcpu'], kept=frame.host_names + ['vm']);

  // What hosts have of the VM, as one series before and after a live migration.
  local of_vm(metric, more='', by=[]) = s.moved('%s{%s%s}' % [metric, s.vm, more], by);

  local facts =
    local openstack = ['openstack_name', 'openstack_flavor', 'openstack_project'];
    local labels = ['vmm', 'manager', 'kubevirt_namespace', 'uuid'] + openstack;
    t.table(
      'The VM',
      |||
        What the manager knows about the VM, on each host that has it: two lines are a live migration, or two VMs with
        one name. Choose the host above. Click the host to open KVM / Host.
      |||,
      [p.query('max by (%s) (kvm_vm_info{%s})' % [s.on(labels), s.vm])],
      [
        t.column('instance', 'Host', { links: [frame.to_cell('host', frame.host_names)] }),
        t.column('openstack_name', 'Display name', { width: 120 }),
        t.column('openstack_project', 'Project', { width: 90 }),
        t.column('kubevirt_namespace', 'Namespace', { width: 90 }),
        t.column('openstack_flavor', 'Flavor', { width: 90 }),
        t.column('manager', 'Manager', { width: 90 }),
        t.column('vmm', 'VMM', { width: 60 }),
        t.column('uuid', 'uuid', { width: 290 }),
      ] + [t.hidden(label) for label in s.host_labels if label != 'instance'],
      { width: 16, height: 4, none: 'It does not run here now' }
    );

  local numbers = [
    p.stat(
      'vCPUs',
      'vCPUs it has now.',
      [p.query(of_vm('kvm_vm_vcpus'))],
      'none',
      { width: 2, graph: 'none' }
    ),
    p.stat(
      'Uses',
      |||
        Cores' worth of time its vCPUs are on a core. Near its number of vCPUs, the guest uses all it has.
      ||| + words.runbook(['KvmVmCpuDelayHigh']),
      [p.query(of_vm('kvm_vm:time:rate5m'))],
      'suffix:cores',
      { width: 3, decimals: 1 }
    ),
    p.stat(
      'Quota',
      |||
        Cores that its tightest CPU quota allows. "none": no quota.
      ||| + words.runbook(['KvmVmQuotaThrottled']),
      [p.query('min(kvm_vm_cpu_quota_cores{%s})' % s.vm)],
      'suffix:cores',
      { width: 3, decimals: 1, graph: 'none' }
    ),
  ];

  local scores = p.state_timeline(
    'Causes over time',
    |||
      The score of each cause: green is far from trouble, yellow from 0.8 of the alert's limit on, red from 1 on. What
      turned red first, before CPI did, is the likely cause. All panels share this time axis.
    ||| + words.runbook_of_cause,
    [p.query(of_vm('kvm_vm:trouble:score', by=['cause']), '{{cause}}')],
    'none',
    { width: 24, height: 7, limits: p.steps([[0.8, p.yellow], [1, p.red]]), legend: false }
  );

  // From the mean up to the limit, filled.
  local band(mean, limit, color) = [
    p.override(limit, {
      'custom.fillBelowTo': mean,
      'custom.fillOpacity': 18,
      'custom.lineWidth': 0,
      color: p.color(color),
    }),
    p.override(mean, { 'custom.lineStyle': p.dashed, 'custom.fillOpacity': 0, color: p.color(color) }),
  ];

  local work = [
    p.timeseries(
      'Cycles per instruction',
      |||
        CPI of the guest with its usual range: from the mean of its last week (blue band) and of its peers (purple
        band) up to the limit beyond which it is an outlier. Below or in the bands is good. Above, the same work takes
        longer: look for the cause in the other panels.
      ||| + words.runbook(['KvmVmCpiAboveItsWeek', 'KvmVmCpiAbovePeers']),
      [
        p.query(of_vm('kvm_vm:cpi:rate5m', ',mode="guest"'), 'guest'),
        p.query(of_vm('kvm_vm:cpi_week:avg'), 'its week, mean'),
        p.query(of_vm('kvm_vm:cpi_week:limit'), 'its week, limit'),
        p.query(of_vm('kvm_vm:cpi_peers:avg'), 'its peers, mean'),
        p.query(of_vm('kvm_vm:cpi_peers:limit'), 'its peers, limit'),
      ],
      'none',
      {
        decimals: 2,
        overrides: [
          p.override('guest', { 'custom.lineWidth': 2, 'custom.fillOpacity': 0, color: p.color(p.orange) }),
        ] + band('its week, mean', 'its week, limit', p.blue) + band('its peers, mean', 'its peers, limit', 'purple'),
      }
    ),
    p.timeseries(
      'Cache misses',
      |||
        Misses per 1000 guest instructions (last level on Intel, L2 on AMD), and their mean in the hour before. Near
        the usual value is good. Over 10 and three times the usual value, a neighbor may evict its data: see
        "Neighbors on its caches and cores".
      ||| + words.runbook(['KvmVmCacheMissStorm']),
      [
        p.query(of_vm('kvm_vm:cache_mpki:rate5m', ',mode="guest"'), 'misses per 1000 instructions'),
        p.query(of_vm('kvm_vm:cache_mpki_hour:avg'), 'usual: mean of the hour before'),
      ],
      'none',
      {
        decimals: 1,
        limits: [[limits.cache_mpki, p.red]],
        overrides: [
          p.override('usual: mean of the hour before', { 'custom.lineStyle': p.dashed, 'custom.fillOpacity': 0 }),
        ],
      }
    ),
    p.timeseries(
      'Delay: waiting for a core',
      |||
        Share of the time its vCPUs want a core in which they wait: of the VM, and of its three worst vCPUs. Below 5 %
        is good. Over 20 % the guest stutters. A VM that its quota throttles waits, too. Click a vCPU to open it.
      ||| + words.runbook(['KvmVmCpuDelayHigh', 'KvmVmCpuDelayCritical', 'KvmVcpuStarved']),
      [
        p.query(of_vm('kvm_vm:delay_ratio:rate5m'), 'VM'),
        p.query(
          s.worst_of(3, 'vcpu', of_vm('kvm_vcpu:delay_ratio:rate5m', by=['vcpu'])),
          'vCPU {{vcpu}}'
        ),
      ],
      'percentunit',
      {
        decimals: 1,
        limits: [[limits.delay, p.orange], [limits.delay_critical, p.red]],
        overrides: [p.override('VM', { 'custom.lineWidth': 2, color: p.color(p.blue) })],
        links: [vcpu_series],
      }
    ),
  ];

  frame.dashboard(
    'vm',
    'Why one VM is slow: the verdict first, then every possible cause on one time axis.',
    [
      verdict.verdict,
      [facts] + numbers,
      scores,
      work,
      layout.row('Neighbors, quota, pressure', [[verdict.neighbors, rows.misses], rows.waiting]),
      layout.row('NUMA: where it runs, where its memory and devices are', rows.numa),
      layout.row('Cache occupancy, memory bandwidth, topdown', rows.cache),
      layout.row('Exits, siblings, frequency, threads', rows.exits),
    ]
  )
