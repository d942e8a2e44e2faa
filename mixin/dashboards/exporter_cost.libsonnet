// What the exporter costs its host, and whether it keeps up.
local p = import 'lib/panels.libsonnet';
local words = import 'lib/words.libsonnet';

function(config)
  local s = (import 'lib/selectors.libsonnet')(config);
  local host = s.host;

  local cost = [
    p.timeseries(
      'Exporter CPU',
      |||
        Cores used by the exporter process, and by its sampler alone. A longer `sampling.tick`, fewer event sets or a
        coarser `labels.placement` lower it.
      |||,
      [
        p.query('kvm_exporter:cpu:rate5m{%s}' % host, 'process'),
        p.query('kvm_exporter:tick_cpu:rate5m{%s}' % host, 'sampler'),
      ],
      'suffix:cores',
      { width: 6, decimals: 3 }
    ),
    p.timeseries(
      'Exporter memory',
      |||
        Resident memory of the exporter. It grows with vCPUs and series, and is steady otherwise.
      |||,
      [
        p.query(
          'process_resident_memory_bytes{%s} and on (%s) kvm_exporter_build_info{%s}' % [host, s.on(), host],
          'resident'
        ),
      ],
      'bytes',
      { width: 6 }
    ),
    p.timeseries(
      'Exporter series',
      |||
        Series about VMs and the host in one scrape, and series dropped because of `limits.max_series`. Good: none
        dropped.
      ||| + words.runbook(['KvmExporterSeriesDropped']),
      [
        p.query('kvm_exporter_series{%s}' % host, 'exported'),
        p.query('sum(kvm_exporter_dropped_series{%s}) or 0 * max(kvm_exporter_series{%s})' % [host, host], 'dropped'),
      ],
      'short',
      { width: 6, overrides: [p.override('dropped', { color: p.color(p.red) })] }
    ),
    p.timeseries(
      'Scrape duration',
      |||
        Time of one scrape as Prometheus measures it. Below a second is good; it must stay far below the scrape
        timeout.
      |||,
      [p.query('scrape_duration_seconds{%s} and on (%s) kvm_exporter_build_info{%s}' % [s.up_host, s.on(), host], 'scrape')],
      's',
      { width: 6 }
    ),
  ];

  local keeping_up = [
    p.timeseries(
      'Missed ticks and read errors',
      |||
        Ticks per second that the sampler could not start in time, and reads of a vCPU that failed, by source. Good:
        0. Missed ticks: the exporter gets too little CPU, or `sampling.tick` is too short for this host.
      ||| + words.runbook(['KvmExporterSampleTooOld']),
      [
        p.query('kvm_exporter:missed_ticks:rate5m{%s}' % host, 'missed ticks'),
        p.query('kvm_exporter:read_errors:rate5m{%s}' % host, 'read errors: {{source}}'),
      ],
      'si:/s',
      { decimals: 2 }
    ),
    p.timeseries(
      'OTLP pushes by outcome',
      |||
        OTLP pushes per second: delivered, failed (retried) or refused. Good: only delivered. Check the receiver's
        address, TLS and log, and the exporter's log.
      |||,
      [p.query('kvm_exporter:otlp_pushes:rate5m{%s}' % host, '{{endpoint}} {{outcome}}')],
      'si:/s',
      {
        decimals: 3,
        none: 'No OTLP push is configured',
        overrides: [p.override_re('.*(failed|refused)', { color: p.color(p.red) })],
      }
    ),
    p.timeseries(
      'OTLP data points not delivered',
      |||
        Data points per second that the receiver rejected or refused. Good: none. The receiver's log says why.
      |||,
      [p.query('kvm_exporter:otlp_data_points:rate5m{%s,outcome!="delivered"} > 0' % host, '{{endpoint}} {{outcome}}')],
      'si:/s',
      { none: 'All data points are delivered, or no OTLP push is configured' }
    ),
  ];

  [cost, keeping_up]
