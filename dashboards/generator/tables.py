"""Tables and their columns."""

from .panels import RED, YELLOW, panel, query_targets, override, steps


def column(
    field,
    name,
    width=None,
    unit=None,
    decimals=None,
    limits=None,
    cell=None,
    links=(),
    mappings=(),
    maximum=None,
    align=None,
    none=None,
):
    """A column of a table: a label, or Value (Value #A and so on where there are several queries)."""
    # Else text that looks like a number would be formatted as one.
    unit = unit or (None if field.startswith("Value") else "string")
    properties = {"displayName": name}
    if width:
        properties["custom_width"] = width
    if align:
        properties["custom_align"] = align
    if unit:
        properties["unit"] = unit
    if decimals is not None:
        properties["decimals"] = decimals
    if limits:
        properties["thresholds"] = limits
        properties["color"] = {"mode": "thresholds"}
    if cell == "gauge":
        properties["custom_cellOptions"] = {"type": "gauge", "mode": "basic", "valueDisplayMode": "color"}
        properties["min"] = 0
    elif cell:
        properties["custom_cellOptions"] = (
            {"type": cell, "mode": "basic"} if cell == "color-background" else {"type": cell}
        )
    if maximum is not None:
        properties["max"] = maximum
    if mappings:
        properties["mappings"] = list(mappings)
    if none:
        properties["noValue"] = none
    if links:
        properties["links"] = list(links)
    return field, override(field, **properties)



def core_demand(field, width):
    """What VMs want of the core in the row, in cores: 2 is all that a core of two threads has."""
    return column(
        field,
        "Core demand",
        width=width,
        unit="none",
        decimals=2,
        cell="gauge",
        maximum=3,
        limits=steps((1.6, YELLOW), (2.2, RED)),
    )

def hidden(field):
    """A column that is not shown, but that links of its row need. Grafana 12.2 gave the property its second name."""
    return field, override(field, custom_hidden=True, custom_hideFrom={"viz": True, "legend": True, "tooltip": True})


def table(
    title,
    description,
    queries,
    columns,
    width,
    height,
    sort=None,
    none="No data",
    unit="short",
    matrix=None,
    filterable=False,
):
    """The columns in their order; other labels are left out. sort: (column's name, descending)."""
    if len(queries) > 1:
        # Grafana's name for it where the first query alone has an answer.
        first = dict(columns).get("Value #A")
        if first:
            columns = [*columns, ("Value", {**first, "matcher": {"id": "byName", "options": "Value"}})]
    names = [field for field, _ in columns]
    transformations = [{"id": "merge", "options": {}}] if len(queries) > 1 else []
    if matrix:
        row, across = matrix
        transformations.append(
            {"id": "groupingToMatrix", "options": {"rowField": row, "columnField": across, "valueField": "Value"}}
        )
    else:
        transformations += [
            {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "indexByName": {name: at for at, name in enumerate(names)},
                    "renameByName": {},
                },
            },
        ]
    return panel(
        "table",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "table"),
        transformations=transformations,
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "frameIndex": 0,
            "sortBy": [{"displayName": sort[0], "desc": sort[1]}] if sort else [],
        },
        fieldConfig={
            "defaults": {
                "unit": unit,
                "noValue": none,
                "color": {"mode": "thresholds"},
                "custom": {
                    "align": "auto",
                    "cellOptions": {"type": "auto"},
                    "filterable": filterable,
                    "inspect": False,
                },
                "mappings": [],
                "thresholds": steps(),
            },
            "overrides": [one for _, one in columns],
        },
    )
