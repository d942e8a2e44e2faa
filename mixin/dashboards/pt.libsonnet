// KVM / PT: what Intel Processor Trace shows of the VMs of a host.
local layout = import 'lib/layout.libsonnet';
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local limits = config.thresholds;

  local vms = s.host + ',vm=~"$vm"';
  local lost = limits.pt_lost;
  local vm_series = frame.to_series('vm', ['vm'], kept=frame.host_names);

  local over_time(title, description, expr, legend, unit, options={}) = p.timeseries(
    title,
    description,
    [p.query(expr, legend)],
    unit,
    { width: 12, height: 8, legend: 'table', links: [vm_series] } + options
  );

  local quality =
    local captures = 'kvm_vcpu_pt_captures_total{%s}' % vms;
    [
      p.stat(
        'VMs traced',
        |||
          VMs with a recording in the last quarter of an hour. 0: `sources.pt` is off, the CPU has no Intel PT, or
          another program uses it; `vcpu-exporter check` says which.
        |||,
        [p.query('count(count by (vm) (kvm_vcpu:pt_lost_ratio:rate15m{%s})) or vector(0)' % vms)],
        'none',
        { width: 4, height: 6, limits: p.steps([[1, 'green']], base=p.yellow), graph: 'none' }
      ),
      p.stat(
        'Recordings that lost data',
        |||
          Share of recordings that lost data, of the worst vCPU. Good: 0. Over 25 % the figures below are biased to
          calm moments: set a larger buffer or a shorter window (`sources.pt`).
        ||| + words.runbook(['KvmPtDataLost']),
        [p.query('max(kvm_vcpu:pt_lost_ratio:rate15m{%s})' % vms)],
        'percentunit',
        {
          width: 4,
          height: 6,
          decimals: 0,
          limits: p.steps([[0.1, p.yellow], [lost, p.red]]),
          none: 'no recording',
        }
      ),
      p.timeseries(
        'Lost data, worst vCPUs',
        |||
          Share of each vCPU's recordings that were truncated, had gaps, collided or overflowed, the five worst. Below
          25 % is good.
        ||| + words.runbook(['KvmPtDataLost']),
        [p.query(s.worst(5, 'vm, vcpu', 'kvm_vcpu:pt_lost_ratio:rate15m{%s}' % vms), '{{vm}} vCPU {{vcpu}}')],
        'percentunit',
        { width: 8, height: 6, decimals: 0, limits: [[lost, p.red]], links: [vm_series] }
      ),
      p.bargauge(
        'Captures since each VM was found, by result',
        |||
          Captures by result. complete is good. idle: the vCPU did not run. busy: another program used Intel PT.
          truncated, partial and collision lost data.
        ||| + words.runbook(['KvmPtDataLost']),
        [p.query('sum by (result) (%s)' % captures, '{{result}}', now=true)],
        'short',
        { width: 8, height: 6, decimals: 0 }
      ),
    ];

  local code = [
    over_time(
      'Conditional branches per cycle',
      |||
        Conditional branches per core cycle of the guest, in recordings. Falling at the same work means that the code
        stalls: cache, memory or a busy sibling. It is not IPC: the trace does not count instructions.
      |||,
      'kvm_vm:pt_branches_per_cycle:rate15m{%s,mode="guest"}' % vms,
      '{{vm}}',
      'none',
      { decimals: 3 }
    ),
    over_time(
      'Indirect branches per cycle',
      |||
        Indirect jumps, calls and returns per core cycle of the guest. High in interpreters and virtual calls.
        Retpolines and other mitigations make each of them slow.
      |||,
      'kvm_vm:pt_indirect_branches_per_cycle:rate15m{%s,mode="guest"}' % vms,
      '{{vm}}',
      'none',
      { decimals: 4 }
    ),
  ];

  local exits = [
    over_time(
      'Traced time outside the guest',
      |||
        Share of the recorded time that KVM and the VMM took (host), or that the trace does not show (unknown). A few
        percent are good. Much host time: exits are expensive, see "Handling by the host".
      ||| + words.runbook(['KvmVmExitStorm']),
      'kvm_vm:pt_traced_share:rate15m{%s,mode!="guest"}' % vms,
      '{{vm}} {{mode}}',
      'percentunit'
    ),
    over_time(
      'Exits per second, as traced',
      |||
        VM exits per second of recording, exact even without tracepoints. Compare with KVM / VM. Over 50,000 handling
        them takes the time.
      ||| + words.runbook(['KvmVmExitStorm']),
      'kvm_vm:pt_exits_per_second:rate15m{%s}' % vms,
      '{{vm}}',
      'si:/s'
    ),
  ];

  local lengths =
    local run = 'kvm_vm:pt_guest_run_seconds';
    local handling = 'kvm_vm:pt_host_handling_seconds';
    local shortest = 'bottomk(5, min_over_time(%s:p50_rate15m{%s}[$__range] @ end()))' % [run, vms];
    local longest = 'topk(5, max_over_time(%s:p99_rate15m{%s}[$__range] @ end()))' % [handling, vms];
    local pair = function(metric, those) [
      p.query(
        |||
          %s:p50_rate15m{%s}
            and on (vm) %s
        ||| % [metric, vms, those],
        '{{vm}}, median'
      ),
      p.query(
        |||
          %s:p99_rate15m{%s}
            and on (vm) %s
        ||| % [metric, vms, those],
        '{{vm}}, 99 %'
      ),
    ];
    local rest = {
      width: 12,
      height: 8,
      legend: 'table',
      links: [vm_series],
      overrides: [p.override_re('.*99 %', { 'custom.lineStyle': p.dashed })],
    };
    [
      p.timeseries(
        'Runs of the guest between exits',
        |||
          Time from VM entry to exit, of the five VMs with the shortest runs: median, and 99th percentile (dashed).
          Long is good. With a median of microseconds the guest hardly gets to work.
        ||| + words.runbook(['KvmVmExitStorm']),
        pair(run, shortest),
        's',
        rest
      ),
      p.timeseries(
        'Handling by the host',
        |||
          Time from VM exit to the next entry, of the five VMs with the longest: median, and 99th percentile (dashed),
          halts included. A median of microseconds is good. A long 99th percentile is a halt, the VMM, or a preempted
          vCPU.
        ||| + words.runbook(['KvmVmExitStorm', 'KvmVmCpuDelayHigh']),
        pair(handling, longest),
        's',
        rest
      ),
    ];

  local each_vm =
    local column_of(at, name, unit, decimals, options={}) =
      t.column('Value #' + std.char(65 + at), name, { unit: unit, decimals: decimals } + options);
    t.table(
      'Each VM now',
      |||
        The last quarter of an hour of each VM: branches per cycle in the guest, share of time in the guest, exits per
        second, median guest run, median handling by the host, and lost data of its worst vCPU. Click a VM to open it.
      ||| + words.runbook(['KvmVmExitStorm', 'KvmPtDataLost']),
      [
        p.query('max by (vm) (kvm_vm:pt_branches_per_cycle:rate15m{%s,mode="guest"})' % vms),
        p.query('max by (vm) (kvm_vm:pt_traced_share:rate15m{%s,mode="guest"})' % vms),
        p.query('max by (vm) (kvm_vm:pt_exits_per_second:rate15m{%s})' % vms),
        p.query('max by (vm) (kvm_vm:pt_guest_run_seconds:p50_rate15m{%s})' % vms),
        p.query('max by (vm) (kvm_vm:pt_host_handling_seconds:p50_rate15m{%s})' % vms),
        p.query('max by (vm) (kvm_vcpu:pt_lost_ratio:rate15m{%s})' % vms),
      ],
      [
        t.column('vm', 'VM', { links: [frame.to_cell('vm', ['vm'], kept=frame.host_names)] }),
        column_of(0, 'Branches per cycle', 'none', 3),
        column_of(1, 'In the guest', 'percentunit', 0, { cell: 'gauge', limits: p.steps([], base=p.blue), maximum: 1 }),
        column_of(2, 'Exits per second', 'si:/s', 1),
        column_of(3, 'Guest run, median', 's', 1),
        column_of(4, 'Host handling, median', 's', 1),
        column_of(5, 'Lost data', 'percentunit', 0, {
          cell: 'color-text',
          limits: p.steps([[0.1, p.orange], [lost, p.red]]),
        }),
      ],
      {
        width: 24,
        height: 9,
        sort: ['Exits per second', true],
        none: 'No recording in the last quarter of an hour',
      }
    );

  local volume =
    local result(name, label) =
      [p.query('sum by (%s) (%s{%s})' % [label, name, vms], '{{%s}}' % label, now=true)];
    [
      p.bargauge(
        'Trace recorded since each VM was found',
        |||
          Bytes of trace, the ten VMs with the most. A vCPU that branches much fills its buffer sooner;
          `sources.pt.window` bounds it.
        |||,
        [
          p.query('topk(10, sum by (vm) (kvm_vcpu_pt_bytes_total{%s}))' % vms, '{{vm}}', now=true),
        ],
        'bytes',
        { width: 8, height: 8, decimals: 0 }
      ),
      p.bargauge(
        'Exits in recordings, by reason',
        |||
          VM exits in recordings, by VMX reason where the CPU has event trace. Without event trace the reason is
          unknown.
        ||| + words.runbook(['KvmVmExitStorm']),
        result('kvm_vcpu_pt_exits_total', 'reason'),
        'short',
        { width: 8, height: 8, decimals: 0 }
      ),
      p.bargauge(
        'Errors in the trace',
        |||
          Overflows (the CPU lost packets), bytes that are no valid packet, and bytes that could not be decoded, since
          each VM was found. Good: 0.
        ||| + words.runbook(['KvmPtDataLost']),
        [
          p.query('sum(kvm_vcpu_pt_overflows_total{%s})' % vms, 'overflows', now=true),
          p.query('sum(kvm_vcpu_pt_decode_errors_total{%s})' % vms, 'decoding errors', now=true),
          p.query('sum(kvm_vcpu_pt_skipped_bytes_total{%s})' % vms, 'bytes skipped', now=true),
        ],
        'short',
        { width: 8, height: 8, decimals: 0, limits: p.steps([[1, p.orange]]) }
      ),
    ];

  frame.dashboard('pt', 'Intel Processor Trace: short recordings of the guest and of the host, vCPU by vCPU.', [
    quality,
    each_vm,
    layout.row('Code', [code]),
    layout.row('Exits', [exits, lengths]),
    layout.row('Volume', [volume]),
  ])
