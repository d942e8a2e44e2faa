// What surrounds the panels: links, annotations, and what an import requires.
local layout = import 'layout.libsonnet';
local p = import 'panels.libsonnet';

local titles = {
  fleet: 'KVM / Fleet',
  host: 'KVM / Host',
  vm: 'KVM / VM',
  vcpu: 'KVM / vCPU',
  pt: 'KVM / PT',
};
local order = ['fleet', 'host', 'vm', 'vcpu', 'pt'];

function(config)
  local s = (import 'selectors.libsonnet')(config);
  local variables = (import 'variables.libsonnet')(config);
  local uid(page) = config.dashboards.uidPrefix + page;

  // The address of a dashboard with the same time and data source. names: variables whose value is that of a column or
  // label (`from`), which is empty where the label does not exist; kept: variables that are handed on as they are.
  local url(page, names, kept, from) =
    local present(list) = [name for name in list if std.member(variables.names(page), name)];
    assert std.setDiff(std.set(names + kept), std.set(variables.names(page) + ['cluster'])) == [] : page;
    local label(name) = if name == 'cluster' then config.clusterLabel else name;
    local parts =
      ['${datasource:queryparam}']
      + ['${%s:queryparam}' % name for name in present(kept)]
      + ['var-%s=${%s.%s:percentencode}' % [name, from, label(name)] for name in present(names)];
    '/d/%s?%s&${__url_time_range}' % [uid(page), std.join('&', parts)];

  local link(from) = function(page, names, kept=[]) {
    title: 'Open ' + titles[page],
    url: url(page, names, kept, from),
    targetBlank: false,
  };

  // The other dashboards, in the bar at the top. A choice of several is not handed on to a dashboard that takes one.
  local bar(page) = [
    local kept = [
      '${%s:queryparam}' % name
      for name in variables.names(page)
      if std.member(variables.names(other), name)
         && (!std.member(variables.several(page), name) || std.member(variables.several(other), name))
    ];
    {
      title: titles[other],
      type: 'link',
      icon: 'dashboard',
      tooltip: titles[other] + ', same time and choice',
      url: '/d/%s?%s' % [uid(other), std.join('&', kept)],
      keepTime: true,
      includeVars: false,
      targetBlank: false,
      asDropdown: false,
      tags: [],
    }
    for other in order
    if other != page
  ];

  // Firing alerts as marks on the time axis: those of what is shown, and those of its host.
  local alerts(page) =
    local about_a_vm = std.member(['vm', 'vcpu'], page);
    local of_hosts = if std.member(['host', 'pt'], page) then s.host else s.hosts;
    local firing = 'ALERTS{alertname=~"Kvm.*",alertstate="firing",' + of_hosts;
    {
      name: 'Alerts',
      datasource: p.datasource,
      enable: true,
      hide: false,
      iconColor: 'red',
      target: {
        refId: 'Alerts',
        expr: if about_a_vm then firing + ',vm=~"$vm|"}' else firing + '}',
      },
      titleFormat: '{{alertname}}',
      textFormat: '{{instance}} {{vm}} {{vcpu}} {{package}} {{core}}',
      tagKeys: 'severity',
    };

  // A line on every page: simulated numbers must say that they are.
  local origin(page) =
    local of_hosts = if std.member(['host', 'pt'], page) then s.host else s.hosts;
    p.stat(
      'Origin of the data',
      |||
        Whether the numbers on this page come from real hosts, or from a synthetic host (`vcpu-exporter demo
        --synthetic`), where every number is simulated.
      |||,
      [p.query(
        'max(kvm_exporter_synthetic{%(hosts)s}) or max(0 * kvm_exporter_build_info{%(hosts)s})' % { hosts: of_hosts },
        now=true
      )],
      'none',
      {
        width: 24,
        height: 2,
        limits: p.steps([[1, p.orange]], base=p.blue),
        mappings: [p.says([
          [0, 'measured', p.blue],
          [1, 'SYNTHETIC: every number here is simulated', p.orange],
        ])],
        graph: 'none',
        none: 'no exporter',
        size: 16,
      }
    );

  // What Grafana's import checks. No input is asked for: the data source is a variable, which provisioning needs, too.
  local requires(panels) =
    local inner = std.flattenArrays([std.get(panel, 'panels', []) for panel in panels]);
    local kinds = std.set([panel.type for panel in panels + inner if panel.type != 'row']);
    [
      { type: 'grafana', id: 'grafana', name: 'Grafana', version: '10.0.0' },
      { type: 'datasource', id: 'prometheus', name: 'Prometheus', version: '1.0.0' },
    ] + [{ type: 'panel', id: kind, name: kind, version: '' } for kind in kinds];

  {
    // A link of a table's cell; names: variables that are columns of the row, kept: variables handed on.
    to_cell:: link('__data.fields'),
    // A link of a series; names: variables that are its labels, kept: variables handed on.
    to_series:: link('__field.labels'),

    // Variables that identify a host.
    host_names:: ['cluster', 'job', 'instance'],

    // The runbook as the exporter itself serves it.
    to_runbook(instance, name):: {
      title: 'Open the runbook',
      url: 'http://${%s}/runbooks/${%s}' % [instance, name],
      targetBlank: true,
    },

    dashboard(page, description, lines)::
      local panels = layout.layout([origin(page)] + lines);
      {
        __inputs: [],
        __requires: requires(panels),
        uid: uid(page),
        title: titles[page],
        description: description,
        tags: config.dashboards.tags,
        schemaVersion: 38,
        version: 1,
        editable: true,
        graphTooltip: 1,
        time: { from: 'now-1h', to: 'now' },
        timepicker: {},
        timezone: '',
        weekStart: '',
        refresh: '30s',
        fiscalYearStartMonth: 0,
        liveNow: false,
        templating: { list: variables.list(page) },
        annotations: { list: [alerts(page)] },
        links: bar(page),
        panels: panels,
      },
  }
