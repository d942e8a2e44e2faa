// Texts of alerts: templates that Prometheus fills in when an alert fires.
//
// Queries name the labels of the alert: `$host`, `$vm` and `$vcpu` stand for the matchers of that object, and
// `$labels.core` for the value of one label. `kvm_vm:time:rate5m{$vm}` becomes
// `printf "kvm_vm:time:rate5m{cluster=%q,job=%q,instance=%q,vm=%q}" $labels.cluster $labels.job ... | query`. An alert without
// a label `cluster` matches series without it. lib/alerts.libsonnet puts in another cluster label.
//
// Two replicas of Prometheus may have written each series, and queries do not name their label: a list is `max by` the labels
// that its items show.
local host = ['cluster', 'job', 'instance'];
local objects = { job: ['cluster', 'job'], host: host, vm: host + ['vm'], vcpu: host + ['vm', 'vcpu'] };

local isOfName(char) = (char >= 'a' && char <= 'z') || char == '_' || char == '.';
local nameEnd(text, at=0) = if at < std.length(text) && isOfName(text[at]) then nameEnd(text, at + 1) else at;

// A `$name` and what follows it, as a format and its arguments.
local placeholder(text) =
  local end = nameEnd(text);
  local name = text[:end];
  local rest = text[end:];
  if std.objectHas(objects, name) then {
    format: std.join(',', [label + '=%q' for label in objects[name]]) + rest,
    arguments: ['$labels.' + label for label in objects[name]],
  } else if std.startsWith(name, 'labels.') then {
    format: '%q' + rest,
    arguments: ['$' + name],
  } else error 'unknown placeholder $' + name;

local query(promql) =
  local parts = std.split(std.strReplace(promql, '"', '\\"'), '$');
  local filled = [placeholder(part) for part in parts[1:]];
  local format = std.join('', [parts[0]] + [part.format for part in filled]);
  local arguments = std.flattenArrays([part.arguments for part in filled]);
  if filled == [] then 'query "%s"' % format
  else 'printf "%s" %s | query' % [format, std.join(' ', arguments)];

{
  // The labels that identify the object of an alert.
  objects:: objects,

  query:: query,

  // The first value of a query, or `?`.
  number(promql, format):: '{{ with %s }}{{ . | first | value | %s }}{{ else }}?{{ end }}' % [query(promql), format],

  // All samples of a query, each as `item`, with commas between them; `none` where there is no sample.
  list(promql, item, sort='', none='unknown')::
    local sorted = if sort == '' then '' else ' | sortByLabel "%s"' % sort;
    '{{ range $i, $row := %s%s }}{{ if $i }}, {{ end }}%s{{ else }}%s{{ end }}' % [query(promql), sorted, item, none],

  // A sentence with the first value of a query, where the query has one, after another sentence: the blank between the two
  // belongs to it.
  optional(before, promql, value, after)::
    '{{ with %s }} %s {{ . | first | value | %s }}%s{{ end }}' % [query(promql), before, value, after],

  digits(digits):: 'printf "%%.%df"' % digits,

  // Formats for `number` and for `{{ .Value | ... }}`, all of two significant digits. humanize and humanizePercentage alone
  // print four, and humanize writes 0.2 as 200m.
  share: 'printf "%.2g" | humanizePercentage',  // 0.1234: 12%
  large: 'printf "%.2g" | humanize',  // 12345 a second: 12k
  whole: 'printf "%.0f"',
  two: 'printf "%.2g"',  // 0 to 99

  // A number of CPUs or anything else that may be below 1 or above 99, from a template expression.
  any(value):: '{{ if lt %s 10.0 }}{{ printf "%%.2g" %s }}{{ else }}{{ printf "%%.0f" %s }}{{ end }}' % [value, value, value],

  // The same of the first value of a query.
  anyOf(promql):: '{{ with %s }}{{ $v := . | first | value }}%s{{ else }}?{{ end }}' % [query(promql), $.any('$v')],

  // The host of an alert.
  host: '{{ $labels.instance }}',

  // The VM of an alert: `vm` and host, then what its manager and users call it.
  vm: 'VM {{ $labels.vm }} on {{ $labels.instance }}'
      + '{{ with %s }}{{ with $vm := first . }}' % query('kvm_vm_info{$vm}')
      + '{{ with .Labels.openstack_name }}, OpenStack {{ . }}{{ end }}'
      + '{{ with .Labels.openstack_project }}, project {{ . }}{{ end }}'
      + '{{ with .Labels.kubevirt_name }}, KubeVirt {{ $vm.Labels.kubevirt_namespace }}/{{ . }}{{ end }}'
      + '{{ with .Labels.proxmox_id }}, Proxmox {{ . }}{{ end }}'
      + '{{ with .Labels.uuid }}, uuid {{ . }}{{ end }}'
      + '{{ end }}{{ end }}',

  // Lines of a description, which is one paragraph.
  paragraph(lines):: std.join(' ', lines),
}
