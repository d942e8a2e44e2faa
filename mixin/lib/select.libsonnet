// Adds a selector to every series of the exporter in an expression: `kvm_vm_vcpus[5m]` becomes `kvm_vm_vcpus{env="prod"}[5m]`.
// Recorded series, whose names have colons, come from selected ones.
local isOfName(char) =
  (char >= 'a' && char <= 'z') || (char >= '0' && char <= '9') || char == '_' || char == ':';
local nameEnd(text, at=0) = if at < std.length(text) && isOfName(text[at]) then nameEnd(text, at + 1) else at;

// What follows a `kvm_`, and whether that is quoted and so no name of a series.
local selected(text, selector) =
  local end = nameEnd(text);
  local name = text[:end];
  local rest = text[end:];
  if std.member(name, ':') then text
  else if std.startsWith(rest, '{') then '%s{%s,%s' % [name, selector, rest[1:]]
  else '%s{%s}%s' % [name, selector, rest];

function(expr, selector)
  local parts = std.split(expr, 'kvm_');
  if selector == '' then expr
  else std.join('kvm_', [parts[0]] + [
    if std.endsWith(parts[i - 1], '"') then parts[i] else selected(parts[i], selector)
    for i in std.range(1, std.length(parts) - 1)
  ])
