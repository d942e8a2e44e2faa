"""Panels, as Grafana 10 to 12 read them. Each function returns one without its place, which layout.py gives it."""

import textwrap

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"


def query(expr, legend="", now=False):
    """A query over the dashboard's time, or of its end alone."""
    expr = textwrap.dedent(expr).strip()
    return {"expr": expr, "legendFormat": legend or "__auto", "now": now}


def query_targets(queries, form):
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


def panel(kind, title, description, width, height, **rest):
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
    return panel(
        "timeseries",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "time_series"),
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
    size=None,
):
    """size: of the value's letters in pixels; without, what fits, which is nothing in a panel of two lines."""
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
    return panel(
        "stat",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "table" if fields else "time_series"),
        options={
            "reduceOptions": {"calcs": [calc], "fields": fields, "values": False},
            "orientation": "auto",
            "textMode": text,
            "colorMode": mode,
            "graphMode": graph,
            "justifyMode": "auto",
            **({"text": {"valueSize": size}} if size else {}),
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
    return panel(
        "bargauge",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "time_series"),
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
    return panel(
        "heatmap",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "time_series"),
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
    return panel(
        "state-timeline",
        title,
        description,
        width,
        height,
        targets=query_targets(queries, "time_series"),
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


def says(words):
    """Value mapping: {value: (text, colour)}."""
    options = {}
    for at, (value, (said, colour)) in enumerate(words.items()):
        options[str(value)] = {"index": at, "text": said, **({"color": colour} if colour else {})}
    return {"type": "value", "options": options}
