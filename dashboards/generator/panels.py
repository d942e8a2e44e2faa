"""Panels, as Grafana 10 to 12 read them. Each function returns one panel without its place, which layout() gives it."""

import textwrap

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"


def query(expr, legend="", now=False):
    """A query over the dashboard's time, or of its end alone."""
    expr = textwrap.dedent(expr).strip()
    return {"expr": expr, "legendFormat": legend or "__auto", "now": now}


def _targets(queries, form):
    targets = []
    for at, one in enumerate(queries):
        now = one["now"] or form == "table"
        targets.append(
            {
                "refId": chr(ord("A") + at),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": one["expr"],
                "format": form,
                "instant": now,
                "range": not now,
                "legendFormat": one["legendFormat"],
            }
        )
    return targets


def _panel(kind, title, description, width, height, **rest):
    return {
        "type": kind,
        "title": title,
        "description": " ".join(textwrap.dedent(description).split()),
        "gridPos": {"w": width, "h": height},
        "datasource": DATASOURCE,
        **rest,
    }


def steps(*pairs, base=GREEN):
    """Thresholds: a colour below the first value, then one from each value on."""
    values = [{"color": base, "value": None}]
    values += [{"color": color, "value": value} for value, color in pairs]
    return {"mode": "absolute", "steps": values}


def override(field, **properties):
    """By the name of a series or column; a property's name has _ where Grafana has a dot."""
    return {
        "matcher": {"id": "byName", "options": field},
        "properties": [{"id": name.replace("_", ".", 1), "value": value} for name, value in properties.items()],
    }


def override_re(pattern, **properties):
    one = override(pattern, **properties)
    one["matcher"]["id"] = "byRegexp"
    return one


def color(name):
    return {"mode": "fixed", "fixedColor": name}


def timeseries(
    title,
    description,
    queries,
    unit,
    width=8,
    height=7,
    limits=(),
    stack=False,
    legend="list",
    maximum=None,
    decimals=None,
    overrides=(),
    links=(),
    none="No data",
):
    """limits: (value, colour) of the alerts, drawn as dashed lines; the axis always reaches the first."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 0,
        "gradientMode": "none",
        "showPoints": "never",
        "pointSize": 4,
        "spanNulls": False,
        "axisPlacement": "auto",
        "axisLabel": "",
        "axisSoftMin": 0,
        "scaleDistribution": {"type": "linear"},
        "stacking": {"group": "A", "mode": "normal" if stack else "none"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    if limits:
        custom["axisSoftMax"] = round(limits[0][0] * 1.2, 6)
    defaults = {
        "unit": unit,
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "min": 0,
        "mappings": [],
        "thresholds": steps(*limits),
        "links": list(links),
        "noValue": none,
    }
    if maximum is not None:
        defaults["max"] = maximum
    # With 0 decimals Grafana marks 0 % and 100 % alone.
    if decimals is not None and (unit, decimals) != ("percentunit", 0):
        defaults["decimals"] = decimals
    calcs = ["lastNotNull", "max"] if legend == "table" else []
    return _panel(
        "timeseries",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "time_series"),
        options={
            "legend": {
                "displayMode": legend,
                "placement": "right" if legend == "table" else "bottom",
                "showLegend": True,
                "calcs": calcs,
                **({"width": 190} if legend == "table" else {}),
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        fieldConfig={"defaults": defaults, "overrides": list(overrides)},
    )


def stat(
    title,
    description,
    queries,
    unit,
    width=3,
    height=4,
    limits=None,
    decimals=None,
    text="value",
    graph="area",
    links=(),
    mappings=(),
    overrides=(),
    fields="",
    none="none",
    calc="lastNotNull",
    mode="value",
):
    defaults = {
        "unit": unit,
        "color": {"mode": "thresholds"},
        "thresholds": limits or steps(base=BLUE),
        "mappings": list(mappings),
        "links": list(links),
        "noValue": none,
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel(
        "stat",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "table" if fields else "time_series"),
        options={
            "reduceOptions": {"calcs": [calc], "fields": fields, "values": False},
            "orientation": "auto",
            "textMode": text,
            "colorMode": mode,
            "graphMode": graph,
            "justifyMode": "auto",
        },
        fieldConfig={"defaults": defaults, "overrides": list(overrides)},
    )


def bargauge(title, description, queries, unit, width=8, height=7, limits=None, decimals=None, maximum=None, links=()):
    defaults = {
        "unit": unit,
        "color": {"mode": "thresholds"} if limits else {"mode": "palette-classic"},
        "thresholds": limits or steps(base=BLUE),
        "mappings": [],
        "min": 0,
        "links": list(links),
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if maximum is not None:
        defaults["max"] = maximum
    return _panel(
        "bargauge",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "time_series"),
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "color",
            "showUnfilled": True,
            "minVizWidth": 8,
            "minVizHeight": 10,
        },
        fieldConfig={"defaults": defaults, "overrides": []},
    )


def heatmap(title, description, queries, unit, width, height, low, high, scheme="RdYlGn", decimals=2, zeros=True):
    """One row a series, in the order of their names; the colour is the value. zeros: whether 0 has a colour, too."""
    return _panel(
        "heatmap",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "time_series"),
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": unit, "decimals": decimals},
            "color": {
                "mode": "scheme",
                "scheme": scheme,
                "scale": "linear",
                "fill": "dark-orange",
                "exponent": 0.5,
                "steps": 64,
                "reverse": False,
                "min": low,
                "max": high,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": -1 if zeros else 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": True},
        },
        fieldConfig={"defaults": {"unit": unit, "custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []},
    )


def state_timeline(
    title,
    description,
    queries,
    unit,
    width,
    height,
    limits=None,
    mappings=(),
    row=0.85,
    links=(),
    show="never",
    scheme="thresholds",
    legend=True,
):
    return _panel(
        "state-timeline",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "time_series"),
        options={
            "alignValue": "center",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": legend, "calcs": []},
            "mergeValues": True,
            "rowHeight": row,
            "showValue": show,
            "tooltip": {"mode": "single", "sort": "none"},
        },
        fieldConfig={
            "defaults": {
                "unit": unit,
                "decimals": 2,
                "color": {"mode": scheme},
                "custom": {"fillOpacity": 75, "lineWidth": 0},
                "mappings": list(mappings),
                "thresholds": limits or steps(base=BLUE),
                "links": list(links),
            },
            "overrides": [],
        },
    )


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
    return _panel(
        "table",
        title,
        description,
        width,
        height,
        targets=_targets(queries, "table"),
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


def text(title, description, content, width, height):
    panel = _panel(
        "text",
        title,
        description,
        width,
        height,
        options={"mode": "markdown", "content": textwrap.dedent(content).strip()},
    )
    del panel["datasource"]
    return panel


def row(title):
    """A heading. Its panels follow it, so it is never closed."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def says(words):
    """Value mapping: {value: (text, colour)}."""
    options = {}
    for at, (value, (said, colour)) in enumerate(words.items()):
        options[str(value)] = {"index": at, "text": said, **({"color": colour} if colour else {})}
    return {"type": "value", "options": options}


def layout(lines):
    """Gives every panel its place and id.

    Each line is a list of panels from left to right, 24 units wide at most, or a single panel. A tuple of lines among
    the panels is a column: its lines stand below each other.
    """
    panels = []
    _place(lines, 0, 0, panels)
    for at, panel in enumerate(panels, start=1):
        panel["id"] = at
    return panels


def _place(lines, left, top, panels):
    """Where the lines end, to the right and below."""
    right, y = left, top
    for line in lines:
        x, below = left, y
        for item in line if isinstance(line, list) else [line]:
            if isinstance(item, tuple):
                x, bottom = _place(item, x, y, panels)
            else:
                item["gridPos"].update(x=x, y=y)
                panels.append(item)
                x, bottom = x + item["gridPos"]["w"], y + item["gridPos"]["h"]
            below = max(below, bottom)
        assert x <= 24, [panel["title"] for panel in line]
        right, y = max(right, x), below
    return right, y
