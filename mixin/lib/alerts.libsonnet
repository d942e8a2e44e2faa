// What alert files are written with: the form that all alerts have in common.
//
// A notification must fit a phone:
//   summary      the same for every instance of the alert: no label, no number, less than 80 characters
//   subject      which VM or host, with the names its manager knows
//   description  first what to do, then numbers of two significant digits
//   runbook_url  the runbook with the names of the alert filled in
local text = import 'text.libsonnet';

// Dashboards and the variables each takes.
local dashboards = {
  fleet: ['job'],
  host: ['job', 'instance'],
  vm: ['job', 'instance', 'vm'],
  vcpu: ['job', 'instance', 'vm', 'vcpu'],
  pt: ['job', 'instance', 'vm'],
};

local query(prefix, labels) =
  std.join('&', ['%s%s={{ $labels.%s | urlquery }}' % [prefix, label, label] for label in labels]);

local dashboardUrl(config, dashboard) =
  local cluster = '{{ with $labels.cluster }}var-cluster={{ . | urlquery }}&{{ end }}';
  '%skvm-%s?%s%s' % [config.dashboardBase, dashboard, cluster, query('var-', dashboards[dashboard])];

// An instance without a port is a host name, as in metrics pushed by OTLP: the exporter has its own port.
local address(config, instance) =
  '{{ %s }}{{ if not (match ":[0-9]+$" %s) }}:%s{{ end }}' % [instance, instance, config.exporterPort];

{
  names:: import 'names.libsonnet',

  // Address of a runbook on an exporter whose instance is the template expression `instance`. The exporter fills in the names
  // of the query; other places get none.
  runbookUrl(config, name, labels=['instance'], instance='$labels.instance')::
    std.strReplace(config.runbookBase, '$INSTANCE', address(config, instance)) + name
    + (if labels == [] || std.findSubstr('$INSTANCE', config.runbookBase) == [] then '' else '?' + query('', labels)),

  // For an exporter that cannot serve its runbook now: any other one does.
  runbookUrlElsewhere(config, name, labels=['instance'])::
    if std.findSubstr('$INSTANCE', config.runbookBase) == [] then $.runbookUrl(config, name, labels) else
    '{{ with printf "kvm_exporter_build_info{instance!=%%q}" $labels.instance | query }}{{ $other := sortByLabel "instance" . | first | label "instance" }}%s{{ else }}docs/runbooks/%s.md{{ end }}'
    % [$.runbookUrl(config, name, labels, '$other'), name],

  // Texts name the default cluster label; this puts in the one that is configured.
  local ofCluster(config, template) = std.strReplace(
    std.strReplace(template, 'cluster=%q', config.clusterLabel + '=%q'), '$labels.cluster', '$labels.' + config.clusterLabel
  ),

  // The alerts of a file: `of(config).alert` with the configuration already filled in.
  of(config):: {
    alert(
      name,
      expr,
      duration,
      severity,
      dashboard,
      summary,
      description,
      runbook_url=$.runbookUrl(config, name, [label for label in dashboards[dashboard] if std.member(['instance', 'vm', 'vcpu'], label)]),
      keep='',
      subject=if std.member(dashboards[dashboard], 'vm') then text.vm else text.host,
    ):: {
      assert std.length(summary) < 80 : name + ': the summary is longer than 79 characters',
      assert std.length(std.findSubstr('{{', summary)) == 0 : name + ': the summary has a label or a number',
      alert: name,
      expr: expr,
      'for': duration,
      [if keep != '' then 'keep_firing_for']: keep,
      labels: { severity: severity },
      annotations: {
        summary: summary,
        subject: ofCluster(config, subject),
        description: ofCluster(config, text.paragraph(description)),
        runbook_url: runbook_url,
        dashboard_url: ofCluster(config, dashboardUrl(config, dashboard)),
      },
    },
  },
}
