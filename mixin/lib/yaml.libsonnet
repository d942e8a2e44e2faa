// Groups of rules as YAML. std.manifestYamlDoc would sort `expr` behind the annotations and print a description as one
// line of a thousand characters; this keeps the usual order of a rule and breaks long text behind templates.
local order =
  ['name', 'interval', 'record', 'alert', 'expr', 'for', 'keep_firing_for', 'labels', 'annotations', 'rules']
  + ['summary', 'subject', 'description', 'runbook_url', 'dashboard_url'];

local indent(depth) = std.repeat('  ', depth);

local isEmpty(value) = (std.isObject(value) || std.isArray(value)) && std.length(value) == 0;

// Keys with a value: those above first, then the others by name.
local keys(object) =
  local present = [key for key in std.objectFields(object) if !isEmpty(object[key])];
  [key for key in order if std.member(present, key)] + [key for key in present if !std.member(order, key)];

local words = ['true', 'false', 'null', 'yes', 'no', 'on', 'off', 'y', 'n', '~'];
local contains(text, part) = std.strReplace(text, part, '') != text;
local isLetter(char) = char >= 'a' && char <= 'z';
local isDigit(char) = char >= '0' && char <= '9';

// Whether YAML reads the text as itself without quotes: words, and durations such as 5m.
local isPlain(text) =
  local first = std.asciiLower(text[0]);
  local last = std.asciiLower(text[std.length(text) - 1]);
  text != ''
  && (isLetter(first) || (isDigit(first) && std.member('smhdwy', last)))
  && !std.member(words, std.asciiLower(text))
  && !contains(text, ': ') && !contains(text, ' #') && !contains(text, '\n') && last != ':' && last != ' ';

// A folded scalar reads a line break as the space it replaces.
local breakAfter(text, end) = std.strReplace(text, end + ' ', end + '\n');

local block(mark, lines, depth) = mark + '\n' + std.join('\n', [indent(depth) + line for line in lines]);

local scalar(value, depth) =
  if !std.isString(value) then std.manifestJsonMinified(value)
  else if std.endsWith(value, '\n') then block('|', std.split(std.stripChars(value, '\n'), '\n'), depth)
  else if std.length(value) > 120 && contains(value, '{{ end }}') && !contains(value, '  ') && !contains(value, '\n')
  then block('>-', std.split(breakAfter(breakAfter(value, '{{ end }}'), '{{ end }}.'), '\n'), depth)
  else if isPlain(value) then value
  else std.escapeStringJson(value);

local object(value, depth) = std.join('\n' + indent(depth), [
  key + ':' + (
    if std.isArray(value[key]) then std.join('', [
      '\n' + indent(depth + 1) + '- ' + object(item, depth + 2)
      for item in value[key]
    ])
    else if std.isObject(value[key]) then '\n' + indent(depth + 1) + object(value[key], depth + 1)
    else ' ' + scalar(value[key], depth + 1)
  )
  for key in keys(value)
]);

{
  // The text of a rule file; no rule has an empty list or object.
  groups(groups):: object({ groups: groups }, 0) + '\n',
}
