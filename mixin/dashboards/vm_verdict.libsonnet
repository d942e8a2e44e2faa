// KVM / VM: the verdict. Which causes are over their limit, and which VM is behind them.
local p = import 'lib/panels.libsonnet';
local t = import 'lib/tables.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local frame = (import 'lib/frame.libsonnet')(config);
  local s = (import 'lib/selectors.libsonnet')(config);
  local host = s.on();
  local by_vm = s.on(['vm']);
  local by_cause = s.on(['vm', 'cause']);

  local score(causes='') = 'kvm_vm:trouble:score{%s%s}' % [s.vm, causes];

  // Over its limit for a tenth of the time range, or now: a moment is no trouble.
  local over(selector) = '(quantile_over_time(0.9, %s[$__range]) >= 1 or %s >= 1)' % [selector, selector];
  local worst(selector) = 'max by (%s) (max_over_time(%s[$__range]) and %s)' % [by_cause, selector, over(selector)];

  // A row that says what is known where no cause is.
  local row_of(cause, expr) = 'label_replace(0 * (%s), "cause", "%s", "", "")' % [expr, cause];
  local explained = 'max by (%s) %s' % [by_vm, over(score(',cause!~"cpi_.*"'))];
  local symptom = 'max by (%s) %s' % [by_vm, over(score(',cause=~"cpi_.*"'))];
  local known = 'max by (%s) (max_over_time(%s[$__range]))' % [by_vm, score()];
  local exists = 'max by (%s) (last_over_time(kvm_vm_info{%s}[$__range]))' % [by_vm, s.vm];

  // The other VM that uses most of what this VM lacks now, in the rows of the causes that it may be behind.
  local culprit(causes, others) = std.rstripChars(|||
    0 * max by (%(by_cause)s) (%(score)s >= 1)
      + on (%(host)s) group_left (culprit) label_replace(
        topk by (%(host)s) (1, sum by (%(by_vm)s) (%(others)s)), "culprit", "$1", "vm", "(.*)"
      )
  ||| % {
    score: score(causes),
    host: host,
    by_vm: by_vm,
    by_cause: by_cause,
    others: std.rstripChars(others, '\n'),
  }, '\n');
  local in_its_caches = |||
    kvm_vm:cache_misses_by_llc:rate5m{%s,vm!="$vm"}
      and on (%s) kvm_vm:time_by_llc:rate5m{%s} > 0.05
  ||| % [s.hosts, s.on(['llc']), s.vm];
  local on_its_cores = |||
    kvm_vm:time_by_core:rate5m{%s,vm!="$vm"} > 0.05
      and on (%s) kvm_vm:time_by_core:rate5m{%s} > 0.05
  ||| % [s.hosts, s.on(['package', 'core']), s.vm];

  local sentences = [
    [cause.cause, cause.verdict, if std.get(cause, 'symptom', false) then p.orange else p.red]
    for cause in words.causes
  ] + [
    ['symptom', words.only_symptoms, p.blue],
    ['none', words.nothing, p.green],
    ['unknown', words.unknown, p.blue],
  ];
  // The runbook's name is a mapping of the cause, so that no query needs to name all of them.
  local runbooks = [[cause.cause, cause.runbook, p.blue] for cause in words.causes]
                   + [[cause, '', p.blue] for cause in ['symptom', 'none', 'unknown']];
  local number = { unit: 'none', decimals: 1, limits: p.steps([[1, p.orange], [2, p.red]]) };
  local culprit_link = frame.to_cell('vm', frame.host_names) + {
    url: std.strReplace(super.url, '&${__url', '&var-vm=${__data.fields.culprit:percentencode}&${__url'),
  };

  {
    verdict: t.table(
      'Why is it slow?',
      |||
        Every cause that is over its limit, or was for a tenth of the time range, the worst now first. Culprit is the
        other VM that uses most of the cache or of the cores that this VM needs; click it to open it. A score is the
        observed value over the limit of the cause's alert. Without a cause on the host, look at the guest: its load,
        its programs, its I/O. A cause below 1 now was there before: move the time range to its begin. Click the
        runbook to open it.
      ||| + words.runbook_of_cause,
      [
        p.query('label_replace(%s, "runbook", "$1", "cause", "(.*)")' % worst(score())),
        p.query('max by (%s) (%s) and %s' % [by_cause, score(), worst(score())]),
        p.query(
          row_of('symptom', '%s unless %s' % [symptom, explained])
          + '\nor '
          + row_of('none', '%s unless %s unless %s' % [known, explained, symptom])
        ),
        p.query(row_of('unknown', '%s unless %s' % [exists, known])),
        p.query(
          culprit(',cause="cache"', in_its_caches) + '\nor ' + culprit(',cause=~"delay|starved|smt"', on_its_cores)
        ),
      ],
      [
        t.column('cause', 'Verdict', { mappings: [p.says(sentences)], cell: 'color-text' }),
        t.column('culprit', 'Culprit', { width: 150, links: [culprit_link] }),
        t.column('Value #B', 'Now', { width: 130, cell: 'gauge', maximum: 5 } + number),
        t.column('Value #A', 'Worst', { width: 80, cell: 'color-text' } + number),
        t.column('runbook', 'Runbook', {
          width: 215,
          mappings: [p.says(runbooks)],
          links: [frame.to_runbook('__data.fields.instance', '__value.text')],
        }),
        t.column('instance', 'Host', { width: 150 }),
      ] + [t.hidden(label) for label in s.host_labels if label != 'instance'],
      {
        width: 24,
        height: 7,
        sort: ['Now', true],
        none: 'Nothing is known about this VM: it does not run here now, or Prometheus does not scrape its host',
      }
    ),

    neighbors: t.table(
      'Neighbors on its caches and cores',
      |||
        Other VMs that share a last-level cache or a core with this VM now: their cache misses per second in its
        caches, and their time on its cores. The VM at the top of the column that matches the verdict is the likely
        culprit. Click it to open it. Pushes others: the VM takes the CPU or the cache that other VMs of the host
        lack.
      ||| + words.runbook(['KvmVmCacheMissStorm', 'KvmVmCpuDelayHigh', 'KvmVmSmtContention']),
      [
        p.query('topk(10, sum by (%s) (\n  %s\n))' % [by_vm, std.rstripChars(in_its_caches, '\n')]),
        p.query('topk(10, sum by (%s) (\n  %s\n))' % [by_vm, std.rstripChars(on_its_cores, '\n')]),
        p.query('topk(10, max by (%s) (kvm_vm:pushes:score{%s,vm!="$vm"}) >= 0.1)' % [by_vm, s.hosts]),
      ],
      [
        t.column('vm', 'VM', { links: [frame.to_cell('vm', frame.host_names + ['vm'])] }),
        t.column('Value #A', 'Misses in its caches', { width: 150, unit: 'si:/s', decimals: 1 }),
        t.column('Value #B', 'Time on its cores', { width: 130, unit: 'suffix:cores', decimals: 2 }),
        t.column('Value #C', 'Pushes others', {
          width: 105,
          unit: 'none',
          decimals: 1,
          cell: 'color-text',
          limits: p.steps([[1, p.orange], [2, p.red]]),
        }),
        t.column('instance', 'Host', { width: 140 }),
      ] + [t.hidden(label) for label in s.host_labels if label != 'instance'],
      { width: 12, height: 8, sort: ['Misses in its caches', true], none: 'No other VM shares its caches or cores' }
    ),
  }
