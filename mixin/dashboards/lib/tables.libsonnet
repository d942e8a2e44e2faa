// Tables and their columns.
local p = import 'panels.libsonnet';

{
  local t = self,

  // A column of a table: a label, or Value (Value #A and so on where there are several queries).
  column(field, name, options={})::
    local o = p.with({
      width: null,
      unit: null,
      decimals: null,
      limits: null,
      cell: null,
      links: [],
      mappings: [],
      maximum: null,
      align: null,
      none: null,
    }, options);
    // Without a unit Grafana formats text that looks like a number as one.
    local unit = if o.unit == null && !std.startsWith(field, 'Value') then 'string' else o.unit;
    {
      field: field,
      override: p.override(
        field,
        { displayName: name }
        + p.when(o.width != null, { 'custom.width': o.width })
        + p.when(o.align != null, { 'custom.align': o.align })
        + p.when(unit != null, { unit: unit })
        + p.when(o.decimals != null, { decimals: o.decimals })
        + p.when(o.limits != null, { thresholds: o.limits, color: { mode: 'thresholds' } })
        + (
          if o.cell == 'gauge' then
            { 'custom.cellOptions': { type: 'gauge', mode: 'basic', valueDisplayMode: 'color' }, min: 0 }
          else if o.cell == 'color-background' then
            { 'custom.cellOptions': { type: 'color-background', mode: 'basic' } }
          else
            p.when(o.cell != null, { 'custom.cellOptions': { type: o.cell } })
        )
        + p.when(o.maximum != null, { max: o.maximum })
        + p.when(o.mappings != [], { mappings: o.mappings })
        + p.when(o.none != null, { noValue: o.none })
        + p.when(o.links != [], { links: o.links })
      ),
    },

  // What VMs want of the core in the row, in cores: 2 is all that a core of two threads has.
  core_demand(field, width):: t.column(field, 'Core demand', {
    width: width,
    unit: 'none',
    decimals: 2,
    cell: 'gauge',
    maximum: 3,
    limits: p.steps([[1.6, p.yellow], [2.2, p.red]]),
  }),

  // A column that is not shown, but that links of its row need. Grafana 12.2 gave the property its second name.
  hidden(field):: {
    field: field,
    override: p.override(field, {
      'custom.hidden': true,
      'custom.hideFrom': { viz: true, legend: true, tooltip: true },
    }),
  },

  // The columns in their order; other labels are left out. sort: [name of a column, descending].
  table(title, description, queries, columns, options)::
    local o = p.with({
      width: 12,
      height: 8,
      sort: null,
      none: 'No data',
      unit: 'short',
      matrix: null,
      filterable: false,
    }, options);
    // Grafana names the value so where the first query alone has an answer.
    local alone = [
      { field: 'Value', override: one.override { matcher: { id: 'byName', options: 'Value' } } }
      for one in columns
      if one.field == 'Value #A' && std.length(queries) > 1
    ];
    local all = columns + alone;
    local names = [one.field for one in all];
    p.panel('table', title, description, o.width, o.height) {
      targets: p.targets(queries, 'table'),
      transformations:
        (if std.length(queries) > 1 then [{ id: 'merge', options: {} }] else [])
        + (
          if o.matrix != null then [
            {
              id: 'groupingToMatrix',
              options: { rowField: o.matrix[0], columnField: o.matrix[1], valueField: 'Value' },
            },
          ] else [
            { id: 'filterFieldsByName', options: { include: { names: names } } },
            {
              id: 'organize',
              options: {
                excludeByName: {},
                indexByName: { [names[at]]: at for at in std.range(0, std.length(names) - 1) },
                renameByName: {},
              },
            },
          ]
        ),
      options: {
        showHeader: true,
        cellHeight: 'sm',
        frameIndex: 0,
        sortBy: if o.sort == null then [] else [{ displayName: o.sort[0], desc: o.sort[1] }],
      },
      fieldConfig: {
        defaults: {
          unit: o.unit,
          noValue: o.none,
          color: { mode: 'thresholds' },
          custom: {
            align: 'auto',
            cellOptions: { type: 'auto' },
            filterable: o.filterable,
            inspect: false,
          },
          mappings: [],
          thresholds: p.steps([]),
        },
        overrides: [one.override for one in all],
      },
    },
}
