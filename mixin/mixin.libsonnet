// Rules, alerts and dashboards of vcpu-exporter, in the form of a monitoring mixin.
local select = import 'lib/select.libsonnet';

local selected(groups, selector) = [
  group { rules: [rule { expr: select(rule.expr, selector) } for rule in group.rules] }
  for group in groups
];

(import 'config.libsonnet')
+ (import 'rules/rules.libsonnet')
+ (import 'alerts/alerts.libsonnet')
+ (import 'dashboards/dashboards.libsonnet')
+ {
  local selector = $._config.selector,
  prometheusRules+:: { groups: selected(super.groups, selector) },
  prometheusAlerts+:: { groups: selected(super.groups, selector) },
}
