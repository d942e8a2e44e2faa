// Panels, as Grafana 10 to 12 read them. Each function returns one without its position, which layout.libsonnet sets.
// `options` are those of the defaults in the function; any other is an error.
local datasource = { type: 'prometheus', uid: '${datasource}' };
local green = 'green', yellow = 'yellow', orange = 'orange', red = 'red', blue = 'blue';

// One line of a text of several.
local joined(text) =
  std.join(' ', std.filter(function(word) word != '', std.split(std.strReplace(text, '\n', ' '), ' ')));

local with(defaults, options) =
  local unknown = std.setDiff(std.objectFields(options), std.objectFields(defaults));
  assert unknown == [] : 'no such option: ' + std.join(', ', unknown);
  defaults + options;

local when(condition, fields) = if condition then fields else {};

{
  local p = self,

  datasource:: datasource,
  green:: green,
  yellow:: yellow,
  orange:: orange,
  red:: red,
  blue:: blue,
  with:: with,
  when:: when,

  // A query over the dashboard's time range, or of its end alone.
  query(expr, legend='', now=false):: {
    expr: std.stripChars(expr, '\n '),
    legendFormat: if legend == '' then '__auto' else legend,
    now: now,
  },

  targets(queries, form):: std.mapWithIndex(
    function(at, one)
      local now = one.now || form == 'table';
      {
        refId: std.char(65 + at),
        datasource: datasource,
        editorMode: 'code',
        expr: one.expr,
        format: form,
        instant: now,
        range: !now,
        legendFormat: one.legendFormat,
      },
    queries
  ),

  panel(kind, title, description, width, height):: {
    type: kind,
    title: title,
    description: joined(description),
    gridPos: { w: width, h: height },
    datasource: datasource,
  },

  // Thresholds: a color below the first value, then one from each value on.
  steps(pairs, base=green):: {
    mode: 'absolute',
    steps: [{ color: base, value: null }] + [{ color: pair[1], value: pair[0] } for pair in pairs],
  },

  local properties(fields) = [{ id: name, value: fields[name] } for name in std.objectFields(fields)],

  // By the name of a series or column, and by a pattern of names.
  override(field, fields):: { matcher: { id: 'byName', options: field }, properties: properties(fields) },
  override_re(pattern, fields):: { matcher: { id: 'byRegexp', options: pattern }, properties: properties(fields) },

  color(name):: { mode: 'fixed', fixedColor: name },
  dashed:: { fill: 'dash', dash: [6, 6] },

  // limits: [value, color] of the alerts, drawn as dashed lines; the axis always reaches the first.
  timeseries(title, description, queries, unit, options={})::
    local o = with({
      width: 8,
      height: 7,
      limits: [],
      stack: false,
      legend: 'list',
      maximum: null,
      decimals: null,
      overrides: [],
      links: [],
      none: 'No data',
    }, options);
    p.panel('timeseries', title, description, o.width, o.height) {
      targets: p.targets(queries, 'time_series'),
      options: {
        legend: {
          displayMode: o.legend,
          placement: if o.legend == 'table' then 'right' else 'bottom',
          showLegend: true,
          calcs: if o.legend == 'table' then ['lastNotNull', 'max'] else [],
        } + when(o.legend == 'table', { width: 190 }),
        tooltip: { mode: 'multi', sort: 'desc' },
      },
      fieldConfig: {
        defaults: {
          unit: unit,
          color: { mode: 'palette-classic' },
          custom: {
            drawStyle: 'line',
            lineInterpolation: 'linear',
            lineWidth: 1,
            fillOpacity: if o.stack then 40 else 0,
            gradientMode: 'none',
            showPoints: 'never',
            pointSize: 4,
            spanNulls: false,
            axisPlacement: 'auto',
            axisLabel: '',
            axisSoftMin: 0,
            scaleDistribution: { type: 'linear' },
            stacking: { group: 'A', mode: if o.stack then 'normal' else 'none' },
            thresholdsStyle: { mode: if o.limits == [] then 'off' else 'dashed' },
          } + when(o.limits != [], { axisSoftMax: std.round(o.limits[0][0] * 1.2e6) / 1e6 }),
          min: 0,
          mappings: [],
          thresholds: p.steps(o.limits),
          links: o.links,
          noValue: o.none,
        } + when(o.maximum != null, { max: o.maximum })
        // With 0 decimals Grafana labels the axis at 0 % and 100 % alone.
        + when(o.decimals != null && !(unit == 'percentunit' && o.decimals == 0), { decimals: o.decimals }),
        overrides: o.overrides,
      },
    },

  // size: height of the value in pixels. Without it Grafana takes what fits, which is nothing in a panel of two lines.
  stat(title, description, queries, unit, options={})::
    local o = with({
      width: 3,
      height: 4,
      limits: null,
      decimals: null,
      text: 'value',
      graph: 'area',
      links: [],
      mappings: [],
      overrides: [],
      fields: '',
      none: 'none',
      calc: 'lastNotNull',
      mode: 'value',
      size: null,
    }, options);
    p.panel('stat', title, description, o.width, o.height) {
      targets: p.targets(queries, if o.fields == '' then 'time_series' else 'table'),
      options: {
        reduceOptions: { calcs: [o.calc], fields: o.fields, values: false },
        orientation: 'auto',
        textMode: o.text,
        colorMode: o.mode,
        graphMode: o.graph,
        justifyMode: 'auto',
      } + when(o.size != null, { text: { valueSize: o.size } }),
      fieldConfig: {
        defaults: {
          unit: unit,
          color: { mode: 'thresholds' },
          thresholds: if o.limits == null then p.steps([], blue) else o.limits,
          mappings: o.mappings,
          links: o.links,
          noValue: o.none,
        } + when(o.decimals != null, { decimals: o.decimals }),
        overrides: o.overrides,
      },
    },

  bargauge(title, description, queries, unit, options={})::
    local o = with({ width: 8, height: 7, limits: null, decimals: null, maximum: null, links: [] }, options);
    p.panel('bargauge', title, description, o.width, o.height) {
      targets: p.targets(queries, 'time_series'),
      options: {
        reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
        orientation: 'horizontal',
        displayMode: 'basic',
        valueMode: 'color',
        showUnfilled: true,
        minVizWidth: 8,
        minVizHeight: 10,
      },
      fieldConfig: {
        defaults: {
          unit: unit,
          color: { mode: if o.limits == null then 'palette-classic' else 'thresholds' },
          thresholds: if o.limits == null then p.steps([], blue) else o.limits,
          mappings: [],
          min: 0,
          links: o.links,
        } + when(o.decimals != null, { decimals: o.decimals }) + when(o.maximum != null, { max: o.maximum }),
        overrides: [],
      },
    },

  // One row a series, in the order of their names; the color is the value. zeros: whether 0 has a color, too.
  heatmap(title, description, queries, unit, options)::
    local o = with({
      width: 12,
      height: 10,
      low: 0,
      high: 1,
      scheme: 'RdYlGn',
      decimals: 2,
      zeros: true,
    }, options);
    p.panel('heatmap', title, description, o.width, o.height) {
      targets: p.targets(queries, 'time_series'),
      options: {
        calculate: false,
        cellGap: 1,
        cellValues: { unit: unit, decimals: o.decimals },
        color: {
          mode: 'scheme',
          scheme: o.scheme,
          scale: 'linear',
          fill: 'dark-orange',
          exponent: 0.5,
          steps: 64,
          reverse: false,
          min: o.low,
          max: o.high,
        },
        exemplars: { color: 'rgba(255,0,255,0.7)' },
        filterValues: { le: if o.zeros then -1 else 1e-9 },
        legend: { show: true },
        rowsFrame: { layout: 'auto' },
        showValue: 'never',
        tooltip: { mode: 'single', yHistogram: false },
        yAxis: { axisPlacement: 'left', reverse: true },
      },
      fieldConfig: { defaults: { unit: unit, custom: { scaleDistribution: { type: 'linear' } } }, overrides: [] },
    },

  state_timeline(title, description, queries, unit, options)::
    local o = with({
      width: 24,
      height: 9,
      limits: null,
      mappings: [],
      row: 0.85,
      links: [],
      show: 'never',
      scheme: 'thresholds',
      legend: true,
    }, options);
    p.panel('state-timeline', title, description, o.width, o.height) {
      targets: p.targets(queries, 'time_series'),
      options: {
        alignValue: 'center',
        legend: { displayMode: 'list', placement: 'bottom', showLegend: o.legend, calcs: [] },
        mergeValues: true,
        rowHeight: o.row,
        showValue: o.show,
        tooltip: { mode: 'single', sort: 'none' },
      },
      fieldConfig: {
        defaults: {
          unit: unit,
          decimals: 2,
          color: { mode: o.scheme },
          custom: { fillOpacity: 75, lineWidth: 0 },
          mappings: o.mappings,
          thresholds: if o.limits == null then p.steps([], blue) else o.limits,
          links: o.links,
        },
        overrides: [],
      },
    },

  // Value mapping: a list of [value, text, color].
  says(words):: {
    type: 'value',
    options: {
      [std.toString(words[at][0])]: { index: at, text: words[at][1], color: words[at][2] }
      for at in std.range(0, std.length(words) - 1)
    },
  },
}
