// Pieces of PromQL that several dashboards use.
function(config) {
  local s = self,
  local cluster = config.clusterLabel,

  // Labels that identify a host.
  host_labels:: (if cluster == '' then [] else [cluster]) + ['job', 'instance'],

  // Labels of a host and these, for `on` and `by`.
  on(labels=[]):: std.join(', ', s.host_labels + labels),

  // Before job: the cluster, and a selector of the configuration.
  local outer(selector) = (if cluster == '' then '' else cluster + '=~"$cluster",')
                          + (if selector == '' then '' else selector + ','),
  local several = 'job=~"$job",instance=~"$instance"',
  local one = 'job=~"$job",instance="$instance"',

  // Where several hosts can be chosen, and where it is one.
  hosts:: outer(config.selector) + several,
  host:: outer(config.selector) + one,

  // The same of series that Prometheus writes for each target.
  local upSelector = if config.upSelector == null then config.selector else config.upSelector,
  up_hosts:: outer(upSelector) + several,
  up_host:: outer(upSelector) + one,

  // A VM, wherever it runs or ran: `instance` holds all hosts that had it.
  vm:: s.hosts + ',vm="$vm"',
  vcpu:: s.vm + ',vcpu=~"$vcpu"',

  // One series of what several hosts have of a VM, before and after a live migration.
  moved(expr, labels=[])::
    if labels == [] then 'max(%s)' % expr else 'max by (%s) (%s)' % [std.join(', ', labels), expr],

  // By core without its node, as joins need it.
  core_demand(selector)::
    'max by (%s) (kvm_host_core:demand:rate5m{%s})' % [s.on(['package', 'core']), selector],

  // With `label` in the label `to`, filled up to three digits, so that names sort as numbers do.
  padded(expr, to, label)::
    local fill(expr, digits, zeros) =
      'label_replace(%s, "%s", "%s$1", "%s", "(%s)")' % [expr, to, zeros, label, digits];
    fill(fill(fill(expr, '[0-9]', '00'), '[0-9]{2}', '0'), '[0-9]{3,}', ''),

  // One series for each core, sorted by node, package and core: `place` is its name.
  by_core(expr, how='max')::
    '%s by (numa_node, package, padded_core) (\n  %s\n)' % [how, s.padded(expr, 'padded_core', 'core')],

  // It begins with a letter: a heat map sorts names that begin with a number by that number alone.
  place:: 'N{{numa_node}} P{{package}} C{{padded_core}}',

  // The series that were highest at some time of the range. topk alone picks others at every step.
  worst(count, on, selector)::
    '%s\n  and on (%s) topk(%d, max_over_time(%s[$__range] @ end()))' % [selector, on, count, selector],

  // The same of an expression.
  worst_of(count, on, expr)::
    '(%s)\n  and on (%s) topk(%d, max_over_time((%s)[$__range:$__interval] @ end()))' % [expr, on, count, expr],
}
