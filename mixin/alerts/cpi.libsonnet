// Cycles per instruction, and the cache misses that raise them.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

// The causes with an alert that hold now, the worst first.
local causes = [
  'Act on the worst cause that holds now, or look for other work in the guest:',
  text.list(
    'topk(3, max by (cause) (kvm_vm:trouble:score{$vm,cause!~"cpi_.*"}) >= 1)',
    '{{ .Labels.cause }} ({{ .Value | %s }} x its threshold)' % text.two,
    none='none has an alert'
  ) + '.',
];

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,

  // Of VMs whose peers have no more than the flavor in common, or of all others.
  local abovePeers(byFlavor, severity) = alert(
    'KvmVmCpiAbovePeers',
    |||
      sum_over_time(kvm_vm:cpi_above_peers:bool[5m:1m]) >= %(cpi_minutes)s
        %(byFlavor)s on (%(vm)s) kvm_vm:peers:info{peers_by="flavor"}
    ||| % (t { byFlavor: byFlavor }),
    '1m',
    severity,
    'vm',
    'A VM needs more cycles per instruction than its peers',
    causes + [
      'CPI is',
      text.number('kvm_vm:cpi_busy:rate5m{$vm}', text.two) + '; the limit for its peers',
      '({{ with %s }}{{ . | first | label "peers" }}, by {{ . | first | label "peers_by" }}{{ else }}unknown{{ end }}) is' % text.query('kvm_vm:peers:info{$vm}'),
      text.number('kvm_vm:cpi_peers:limit{$vm}', text.two) + ', their mean',
      text.number('kvm_vm:cpi_peers:avg{$vm}', text.two) + '.',
      'If the peers do the same work, the place of this VM is worse.',
    ]
  ),

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.cpi.alerts',
        rules: [
          // Three minutes of the last five, as in the CPI2 paper: that is the wait, so `for` adds little.
          alert(
            'KvmVmCpiAboveItsWeek',
            'sum_over_time(kvm_vm:cpi_above_week:bool[5m:1m]) >= %(cpi_minutes)s' % t,
            '1m',
            'warning',
            'vm',
            'A VM needs more cycles per instruction than in its last week',
            causes + [
              'CPI is',
              text.number('kvm_vm:cpi_busy:rate5m{$vm}', text.two) + '; the limit from its last week is',
              text.number('kvm_vm:cpi_week:limit{$vm}', text.two) + ', the mean',
              text.number('kvm_vm:cpi_week:avg{$vm}', text.two) + '.',
              'The VM does less work in the same CPU time.',
            ]
          ),

          abovePeers('unless', 'warning'),
          // Size is not work: a database of the same flavor as web servers is no fault.
          abovePeers('and', 'info'),

          // Its own hour begins a quarter of an hour ago, so a storm that stays becomes usual, and the alert ends, after
          // about half an hour. A VM has an hour to compare with once it is a quarter of an hour old.
          alert(
            'KvmVmCacheMissStorm',
            |||
              sum without (mode) (
                kvm_vm:cache_mpki:rate5m{mode="guest"} > %(cache_mpki)s
                  and kvm_vm:cache_mpki:rate5m > %(cache_over_usual)s * kvm_vm:cache_mpki_hour:avg
              )
                and on (%(vm)s) kvm_vm:time:rate5m >= %(vm_busy_cores)s
            ||| % t,
            '3m',
            'warning',
            'vm',
            'A VM misses the cache far more than in the hour before',
            [
              'Find the VM that evicts its data, limit it or move one of the two. Most misses by other VMs in its last-level cache:',
              text.list(
                'topk(3, sum by (vm) (max by (vm, llc) (kvm_vm:cache_misses_by_llc:rate5m{$host,vm!=$labels.vm} and on (llc) (kvm_vm:cache_misses_by_llc:rate5m{$vm} > 0))))',
                '{{ .Labels.vm }} ({{ .Value | %s }}/s)' % text.large,
                none='unknown'
              ) + '.',
              'The guest misses the cache ' + text.any('$value') + ' times per 1000 instructions; in the hour before it was',
              text.anyOf('kvm_vm:cache_mpki_hour:avg{$vm}') + '.',
            ]
          ),
        ],
      },
    ],
  },
}
