// What limits what the exporter can tell. Where a number has no gap in it while the exporter restarts, nothing more is
// needed; what it says of itself is bridged over two minutes, which is shorter than any `for` here that it matters to.
local lib = import '../lib/alerts.libsonnet';
local text = import '../lib/text.libsonnet';

// Reasons that are no fault: switched off in the configuration.
local off = ['disabled', 'walks_off'];
// Reasons that are no fault: this machine or its kernel does not have it (`Reason::ABSENT` in src/engine.rs; tests/alerts.rs keeps
// both equal). resctrl that is mounted for other uses has the reason no_group.
local absent = [
  'no_cpufreq',
  'no_data',
  'no_exit_tracepoint',
  'no_numa',
  'no_pmu',
  'no_pressure',
  'no_pt',
  'no_resctrl',
  'no_sensor',
  'no_vfio',
  'not_x86',
];

// An exporter is a target of the job in the example configuration, or what was an exporter within `absentWindow`: pushed by OTLP,
// or of any job. `seen` keeps the labels of the target.
local seen(range) = 'max without (version, revision) (present_over_time(kvm_exporter_build_info[%s]))' % range;

{
  local t = lib.names($._config),
  local alert = lib.of($._config).alert,
  local onHost = 'on (%(host)s)' % t,
  local window = $._config.absentWindow,
  local down = |||
    %s == 0
      or (%s == 0 and %s %s)
  ||| % [t.up_of_job, t.up, onHost, seen($._config.absentWindow)],

  prometheusAlerts+:: {
    groups+: [
      {
        name: 'vcpu-exporter.exporter.alerts',
        rules: [
          alert(
            'KvmPtDataLost',
            'max without (vcpu) (kvm_vcpu:pt_lost_ratio:rate15m) > %(pt_lost)s' % t,
            '15m',
            'info',
            'pt',
            'Intel PT recordings of a VM lose data',
            [
              'Make recordings shorter or rarer in sources.pt, or ignore this: rates from recordings stay correct, only long runs of the guest are missing.',
              'Of the recordings of one of its vCPUs, {{ $value | %s }} were truncated, had gaps or overflowed.' % text.share,
            ]
          ),

          alert(
            'KvmPmuHostOnly',
            'last_over_time(kvm_exporter_pmu_mode{mode="host_only"}[2m]) == 1',
            '5m',
            'info',
            'host',
            "Hardware counters count only the host's work, not the guests",
            [
              'Accept this or turn off what keeps guests from being counted: {{ $labels.reason }}.',
              'Cycles per instruction and cache misses of guests are unknown on this host, and alerts about them cannot fire.',
            ]
          ),

          alert(
            'KvmPmuMultiplexed',
            'kvm_host:pmu_running_ratio:rate5m < %(pmu_running)s' % t,
            '5m',
            'info',
            'host',
            'Hardware counters of vCPUs count only part of the time',
            [
              'Find the other user of the counters (perf, another agent), or configure fewer event sets.',
              'The counters of vCPUs counted {{ $value | %s }} of the time; the rest is scaled up.' % text.share,
              'Totals over minutes are correct, short bursts may be missed.',
            ]
          ),

          alert(
            'KvmExporterDown',
            down,
            '2m',
            'warning',
            'fleet',
            'A KVM exporter does not answer Prometheus',
            [
              'Check whether the host is up; if it is, start the exporter (systemctl status vcpu-exporter).',
              'Prometheus cannot scrape {{ $labels.instance }} (job {{ $labels.job }}). Its VMs run on, but no other alert about them can fire.',
            ],
            runbook_url=lib.runbookUrlElsewhere($._config, 'KvmExporterDown')
          ),

          // An exporter that pushes by OTLP has no `up`, and neither has a target that left discovery.
          alert(
            'KvmExporterAbsent',
            |||
              %s
                unless %s present_over_time(kvm_exporter_build_info[5m])
                unless %s %s == 0
            ||| % [seen($._config.absentWindow), onHost, onHost, t.up],
            '2m',
            'warning',
            'fleet',
            'A KVM exporter stopped sending metrics',
            [
              'Check whether the host is up and the exporter runs; if the host was taken out of service, silence this alert for %s.' % window,
              'Metrics of {{ $labels.instance }} (job {{ $labels.job }}) came in the last %s, by OTLP or from a target, and none in the last 5 minutes.' % window,
              'No other alert about its VMs can fire.',
            ],
            runbook_url=lib.runbookUrlElsewhere($._config, 'KvmExporterAbsent')
          ),

          // One alert about a job, so the sums are `by`. Exporters that are down or absent, of all within `absentWindow`.
          alert(
            'KvmExportersDown',
            |||
              count by (%(fleet)s) (%(lost)s) >= %(exporters_down)s
                and on (%(fleet)s)
              count by (%(fleet)s) (%(lost)s)
                / count by (%(fleet)s) (%(known)s) > %(exporters_down_share)s
            ||| % (t {
              known: 'kvm_exporter:lost:bool',
              lost: 'kvm_exporter:lost:bool == 1',
            }),
            '2m',
            'critical',
            'fleet',
            'Many KVM exporters are down at once',
            [
              'Look for what the hosts have in common: a network, a rack, a rollout of the exporter, Prometheus itself.',
              '{{ $value | %s }} of' % text.whole,
              text.number('count(kvm_exporter:lost:bool{$job})', text.whole),
              'exporters of job {{ $labels.job }} do not answer or send nothing. No other alert about their VMs can fire.',
            ],
            runbook_url=lib.runbookUrlElsewhere($._config, 'KvmExportersDown', []),
            subject='job {{ $labels.job }}{{ with $labels.cluster }} in {{ . }}{{ end }}'
          ),

          // The labels are those of Prometheus, which scrapes itself.
          alert(
            'KvmRulesFailing',
            'increase(prometheus_rule_evaluation_failures_total{%s}[5m]) > 0' % std.join(
              ',',
              ['rule_group=~".*vcpu-exporter[.].*"']
              + (if $._config.prometheusSelector == '' then [] else [$._config.prometheusSelector])
            ),
            '5m',
            'warning',
            'fleet',
            'Rules of the KVM exporter fail in Prometheus',
            [
              'Read why on the page Rules of Prometheus or in its log, and fix the rule or the duplicate series.',
              'Rules of group {{ $labels.rule_group | reReplaceAll ".*;" "" }} fail in {{ $labels.instance }}. Alerts that depend on them cannot fire.',
            ],
            runbook_url=lib.runbookUrlElsewhere($._config, 'KvmRulesFailing', []),
            subject='Prometheus {{ $labels.instance }}'
          ),

          // resctrl is there for other uses; Secure Boot locks debugfs, which kvm_stat needs where VMMs hold no
          // descriptors of statistics, and exits come from tracepoints then; where the PMU
          // delivers the host side alone, that is KvmPmuHostOnly. Visibility gaps and hung threads are reasons too.
          alert(
            'KvmExporterSourceDegraded',
            |||
              last_over_time(kvm_exporter_source_up{reason!="", reason!~"%(no_trouble)s"}[2m])
                unless on (%(host)s, source, reason) last_over_time(kvm_exporter_source_up{source="resctrl", reason="no_group"}[2m])
                unless on (%(host)s, source, reason) last_over_time(kvm_exporter_source_up{source="kvm_stat", reason="lockdown"}[2m])
                unless on (%(host)s, source, reason) last_over_time(kvm_exporter_source_up{source="pmu", reason=~"mediated_vpmu|exclude_host_refused"}[2m]) == 1
            ||| % (t { no_trouble: std.join('|', off + absent) }),
            '10m',
            'warning',
            'host',
            'A source of the KVM exporter is degraded',
            [
              'Run vcpu-exporter check on the host: it lists what the source requires and how to fix it.',
              'Source {{ $labels.source }} delivers {{ if eq $value 0.0 }}nothing{{ else }}only a part{{ end }} for 10 minutes: {{ $labels.reason }}.',
              'Its metrics are absent, not 0, and alerts about them cannot fire.',
            ]
          ),

          alert(
            'KvmExporterSampleTooOld',
            'last_over_time(kvm_exporter_sample_age_seconds[2m]) > %(sample_age_seconds)s' % t,
            '2m',
            'warning',
            'host',
            'A KVM exporter answers with old samples',
            [
              'Look for a host without free CPU or with blocked I/O; restart the exporter if neither explains it.',
              'Its sampler finished no tick for {{ $value | humanizeDuration }}. Totals stand still, and rates fall towards 0 although VMs run.',
            ]
          ),

          alert(
            'KvmExporterSeriesDropped',
            'last_over_time(kvm_exporter_dropped_series[2m]) > %(dropped_series)s' % t,
            '5m',
            'warning',
            'host',
            'A KVM exporter drops series to stay within its limit',
            [
              'Raise limits.max_series, or choose the detail to drop in the configuration.',
              'The exporter drops {{ $value | %s }} series: detail {{ $labels.what }}.' % text.large,
              'Alerts that need that detail cannot fire.',
            ]
          ),

          // Both times are from the clock of the host. The last two parts are an exporter that never delivered, and a receiver
          // that accepts a request and not all of its points.
          alert(
            'KvmExporterOtlpFailing',
            |||
              -1 * (
                last_over_time(kvm_exporter_otlp_last_delivery_timestamp_seconds[2m])
                  - %(on)s group_left () max by (%(host)s) (last_over_time(kvm_exporter_sample_timestamp_seconds[2m]))
              ) > %(otlp_age_seconds)s
                or (
                  sum without (outcome) (increase(kvm_exporter_otlp_pushes_total{outcome!="delivered"}[5m])) > 0
                    unless on (%(host)s, endpoint) last_over_time(kvm_exporter_otlp_last_delivery_timestamp_seconds[5m])
                )
                or sum without (outcome) (increase(kvm_exporter_otlp_data_points_total{outcome!="delivered"}[5m])) > 0
            ||| % (t { on: onHost }),
            '5m',
            'warning',
            'host',
            'A KVM exporter cannot deliver its metrics by OTLP',
            [
              'Run vcpu-exporter check on the host: it tries each endpoint and reports the error.',
              '{{ with %s }}The last delivery to {{ $labels.endpoint }} was {{ . | first | value | humanizeDuration }} ago.{{ else }}Nothing was delivered to {{ $labels.endpoint }} yet.{{ end }}'
              % text.query(
                'kvm_exporter_sample_timestamp_seconds{$host} - ignoring (endpoint) group_right () kvm_exporter_otlp_last_delivery_timestamp_seconds{$host,endpoint=$labels.endpoint}'
              ),
              'In 5 minutes',
              text.number('sum(max by (outcome) (increase(kvm_exporter_otlp_pushes_total{$host,endpoint=$labels.endpoint,outcome!="delivered"}[5m]))) or vector(0)', text.whole),
              'pushes failed and',
              text.number('sum(max by (outcome) (increase(kvm_exporter_otlp_data_points_total{$host,endpoint=$labels.endpoint,outcome!="delivered"}[5m]))) or vector(0)', text.large),
              'data points were refused.',
            ]
          ),
        ],
      },
    ],
  },
}
