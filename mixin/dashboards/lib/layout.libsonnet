// The position of each panel.
//
// A dashboard is a list of lines. A line is one panel, or a list of panels from left to right, 24 units wide at most. A
// column ({ column: lines }) among the panels of a line is a stack of lines. A row (`row`) is a line, too.
local place(lines, left, top) =
  local item(state, one) =
    local placed =
      if std.objectHas(one, 'column') then
        place(one.column, state.x, state.y)
      else {
        panels: [one { gridPos+: { x: state.x, y: state.y } }],
        right: state.x + one.gridPos.w,
        bottom: state.y + one.gridPos.h,
      };
    state {
      panels: super.panels + placed.panels,
      x: placed.right,
      below: std.max(super.below, placed.bottom),
    };
  local line(state, one) =
    local start = { panels: [], x: left, y: state.bottom, below: state.bottom };
    local items = if std.isArray(one) then one else [one];
    local end = std.foldl(item, items, start);
    assert end.x <= 24 : 'wider than 24 units: ' + std.join(', ', [i.title for i in items]);
    {
      panels: state.panels + end.panels,
      right: std.max(state.right, end.x),
      bottom: end.below,
    };
  // The panels of a collapsed row have the positions they get when the row is opened.
  local opened(panel) =
    if std.objectHas(panel, 'lines') then
      panel {
        lines:: super.lines,
        panels: place(panel.lines, 0, panel.gridPos.y + 1).panels,
      }
    else
      panel;
  local end = std.foldl(line, lines, { panels: [], right: left, bottom: top });
  end { panels: [opened(panel) for panel in super.panels] };

// Ids from 1 on, in the order of reading.
local numbered(panels) =
  local number(state, panel) =
    local inner = std.get(panel, 'panels', []);
    {
      panels: state.panels + [
        panel { id: state.next }
        + (
          if inner == [] then {}
          else { panels: std.mapWithIndex(function(at, one) one { id: state.next + 1 + at }, inner) }
        ),
      ],
      next: state.next + 1 + std.length(inner),
    };
  std.foldl(number, panels, { panels: [], next: 1 }).panels;

{
  // A collapsed row: Grafana queries its panels once it is opened.
  row(title, lines):: { type: 'row', title: title, collapsed: true, lines: lines, gridPos: { w: 24, h: 1 } },

  layout(lines):: numbered(place(lines, 0, 0).panels),
}
