// JSON as text, with fields in order of their names and empty lists on one line.
//
// std.manifestJsonEx writes 0.1 as 0.10000000000000001 in the C++ jsonnet and as 0.1 in go-jsonnet; this is the same in both.
local number(value) = if std.floor(value) == value then '%d' % value else '%g' % value;

local write(value, indent) =
  local inner = indent + '  ';
  local list(open, items, close) =
    if items == [] then open + close
    else open + '\n' + std.join(',\n', [inner + item for item in items]) + '\n' + indent + close;
  if std.isObject(value) then list('{', [
    std.escapeStringJson(key) + ': ' + write(value[key], inner)
    for key in std.objectFields(value)
  ], '}')
  else if std.isArray(value) then list('[', [write(item, inner) for item in value], ']')
  else if std.isNumber(value) then number(value)
  else if std.isString(value) then std.escapeStringJson(value)
  else std.toString(value);

{
  number:: number,

  text(value):: write(value, '') + '\n',
}
