// The files that are rendered from the mixin with its defaults and committed, by path: `mixin/render` writes them, and
// so does `jsonnet -S -m . mixin/files.jsonnet` from the root of the repository. `config` has settings of a site
// (config.libsonnet).
local json = import 'dashboards/lib/json.libsonnet';
local lean = import 'lean.libsonnet';
local yaml = import 'lib/yaml.libsonnet';

local header = '# Generated from mixin/ by mixin/render; change it there. docs/ALERTS.md says what each rule means and how to load them.\n';

function(config={})
  local mixin = (import 'mixin.libsonnet') + { _config: std.mergePatch(super._config, config) };
  local ofVms = lean(mixin.prometheusRules.groups, mixin.prometheusAlerts.groups);

  {
    'alerts/recording.yaml': header + yaml.groups(mixin.prometheusRules.groups),
    'alerts/alerts.yaml': header + yaml.groups(mixin.prometheusAlerts.groups),
    // In a directory of their own, because `alerts/*.yaml` is what Prometheus is told to load.
    'alerts/lean/recording.yaml': header + yaml.groups(ofVms.rules),
    'alerts/lean/alerts.yaml': header + yaml.groups(ofVms.alerts),
  }
  + {
    ['dashboards/' + name]: json.text(mixin.grafanaDashboards[name])
    for name in std.objectFields(mixin.grafanaDashboards)
  }
