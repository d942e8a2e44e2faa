// The lean set: rules and alerts of VMs and hosts, without a recorded series for each vCPU, CPU or core of a VM. What a rule
// that stays needs of those is written out in it, so both sets give the same values; the lean one records less and computes
// more. Alerts about one vCPU's details and about Intel PT are left out with the series they read.
local select = import 'lib/select.libsonnet';

local isLeftOut(name) =
  std.startsWith(name, 'kvm_vcpu:')
  || (std.startsWith(name, 'kvm_vm:') && std.endsWith(name, '_by_core:rate5m'))
  || std.length(std.findSubstr(':pt_', name)) > 0;

local isOfName(char) =
  (char >= 'a' && char <= 'z') || (char >= '0' && char <= '9') || char == '_' || char == ':';

// The C++ jsonnet takes a third of a second for std.findSubstr in a text of 1,000 characters; std.strReplace and std.split are
// native there.
local contains(text, part) = std.strReplace(text, part, '') != text;

// Puts `definition` in the place of each `name` in an expression; matchers of `name` go to the series of the exporter in it.
// A range of `name` cannot be written out: there the name stays.
local writeOut(expr, name, definition) =
  local one(before, part) =
    local next = if part == '' then ' ' else part[0];
    if isOfName(next) || next == '[' then before + name + part
    else if next == '{' then
      local matchers = std.splitLimit(part[1:], '}', 1);
      before + '(' + select(definition, matchers[0]) + ')' + matchers[1]
    else before + '(' + definition + ')' + part;
  if !contains(expr, name) then expr
  else
    local parts = std.split(expr, name);
    std.foldl(one, parts[1:], parts[0]);

local mentions(expr, names) = std.any([contains(expr, name) for name in names]);

function(rules, alerts)
  local all = [rule for group in rules for rule in group.rules];
  local leftOut = [rule for rule in all if isLeftOut(rule.record)];
  local names = [rule.record for rule in leftOut];
  // A definition on one line. Later definitions may read earlier ones, never the other way round.
  local line(expr) = std.join(' ', [word for word in std.split(std.strReplace(expr, '\n', ' '), ' ') if word != '']);
  local definitions = std.foldl(
    function(known, rule) known + [{
      name: rule.record,
      expr: std.foldl(function(expr, d) writeOut(expr, d.name, d.expr), known, line(rule.expr)),
    }],
    leftOut,
    []
  );
  local full(expr) = std.foldl(function(expr, d) writeOut(expr, d.name, d.expr), definitions, expr);

  // In the template of a text, `%q` and its argument go together while expressions are written out, because matchers may be
  // needed more than once: `%q` is <argument> meanwhile.
  local template(text) =
    local one(before, part) =
      // The format ends at the first quote that is not escaped.
      local quoted = std.split(part, '"');
      local last = [i for i in std.range(0, std.length(quoted) - 1) if !std.endsWith(quoted[i], '\\')][0];
      local format = std.join('"', quoted[:last + 1]);
      local piped = std.splitLimit(std.join('"', quoted[last + 1:]), ' | query', 1);
      if !mentions(format, names) || std.length(piped) == 1 then before + 'printf "' + part
      else
        local arguments = [word for word in std.split(piped[0], ' ') if word != ''];
        local pieces = std.split(format, '%q');
        local marked = std.join('', [pieces[0]] + [
          '<' + arguments[i] + '>' + pieces[i + 1]
          for i in std.range(0, std.length(arguments) - 1)
        ]);
        local written = std.strReplace(full(std.strReplace(marked, '\\"', '"')), '"', '\\"');
        local found = std.split(written, '<$');
        before + 'printf "' + std.join('%q', [found[0]] + [std.splitLimit(piece, '>', 1)[1] for piece in found[1:]])
        + '" ' + std.join(' ', ['$' + std.splitLimit(piece, '>', 1)[0] for piece in found[1:]])
        + ' | query' + piped[1];
    local parts = std.split(text, 'printf "');
    std.foldl(one, parts[1:], parts[0]);

  local withAnnotations(alert) = alert {
    expr: full(alert.expr),
    annotations: { [key]: template(alert.annotations[key]) for key in std.objectFields(alert.annotations) },
  };
  local isWhole(rule) =
    !mentions(rule.expr, names)
    && (!std.objectHas(rule, 'annotations') || !std.any([mentions(text, names) for text in std.objectValues(rule.annotations)]));
  local isWanted(alert) = !std.startsWith(alert.alert, 'KvmPt');
  local groupsOf(groups, change, wanted) = [
    group
    for group in [
      group { rules: std.filter(isWhole, [change(rule) for rule in group.rules if wanted(rule)]) }
      for group in groups
    ]
    if group.rules != []
  ];

  {
    rules: groupsOf(rules, function(rule) rule { expr: full(rule.expr) }, function(rule) !isLeftOut(rule.record)),
    alerts: groupsOf(alerts, withAnnotations, isWanted),
  }
