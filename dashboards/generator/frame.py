"""What surrounds the panels: variables, links, annotations."""

from .layout import layout
from .panels import BLUE, DATASOURCE, ORANGE, query, stat, steps

# Variables each dashboard has, in order; links hand on those the target knows.
VARIABLES = {
    "kvm-fleet": ("datasource", "job", "instance"),
    "kvm-host": ("datasource", "job", "instance"),
    "kvm-vm": ("datasource", "job", "instance", "vm"),
    "kvm-vcpu": ("datasource", "job", "instance", "vm", "vcpu"),
    "kvm-pt": ("datasource", "job", "instance", "vm"),
}
TITLES = {
    "kvm-fleet": "KVM / Fleet",
    "kvm-host": "KVM / Host",
    "kvm-vm": "KVM / VM",
    "kvm-vcpu": "KVM / vCPU",
    "kvm-pt": "KVM / PT",
}
# Those of which several can be chosen, or all.
SEVERAL = {"kvm-fleet": ("job", "instance"), "kvm-vcpu": ("vcpu",), "kvm-pt": ("vm",)}


def _datasource():
    return {
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the exporters and has their recording rules.",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _of(uid, name):
    """What the values of a variable are read from: a metric that has the label, chained to the variables before it."""
    several = SEVERAL.get(uid, ())
    match = lambda other: f'{other}=~"${other}"' if other in several else f'{other}="${other}"'
    before = {"job": (), "instance": ("job",), "vm": ("job", "instance"), "vcpu": ("job", "instance", "vm")}[name]
    metric = {
        "job": "kvm_exporter_build_info",
        "instance": "kvm_exporter_build_info",
        "vm": "kvm_vm_info",
        "vcpu": "kvm_vcpu_placement_info",
    }[name]
    labels = ",".join(match(other) for other in before)
    return f"label_values({metric}{{{labels}}}, {name})" if labels else f"label_values({metric}, {name})"


def _variable(uid, name):
    label, description = {
        "job": ("Job", "The scrape job of the exporters."),
        "instance": ("Host", "The exporter of a KVM host, as Prometheus names it."),
        "vm": ("VM", "A VM on the host. Names are unique on their host only."),
        "vcpu": ("vCPU", "The index of a vCPU of the VM."),
    }[name]
    several = name in SEVERAL.get(uid, ())
    definition = _of(uid, name)
    variable = {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": definition, "refId": f"Variable-{name}"},
        "hide": 0,
        "includeAll": several,
        "multi": several,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        # By number for vCPUs, else by name.
        "sort": 3 if name == "vcpu" else 1,
    }
    if several:
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    # All jobs are those of the list: `.+` would take in those of other exporters.
    if several and name != "job":
        variable["allValue"] = ".+"
    return variable


def url(target, **values):
    """The address of a dashboard with the same time and data source; values: where each other variable's value is from.

    None hands the variable on as it is.
    """
    assert set(values) <= set(VARIABLES[target]), (target, values)
    parts = ["${datasource:queryparam}"]
    for name, source in values.items():
        parts.append(f"${{{name}:queryparam}}" if source is None else f"var-{name}=${{{source}:percentencode}}")
    return f"/d/{target}?{'&'.join(parts)}&${{__url_time_range}}"


def to_cell(target, *names, **same):
    """A link of a table's cell; names: variables that are columns of the row, same: variables handed on."""
    values = {**{name: None for name in same}, **{name: f"__data.fields.{name}" for name in names}}
    return {"title": f"Open {TITLES[target]}", "url": url(target, **values), "targetBlank": False}


def to_series(target, *names, **same):
    """A link of a series; names: variables that are labels of it, same: variables handed on."""
    values = {**{name: None for name in same}, **{name: f"__field.labels.{name}" for name in names}}
    return {"title": f"Open {TITLES[target]}", "url": url(target, **values), "targetBlank": False}


def to_runbook(instance, name):
    """The runbook as the exporter itself serves it."""
    return {"title": "Open the runbook", "url": f"http://${{{instance}}}/runbooks/${{{name}}}", "targetBlank": True}


def _links(uid):
    """The other dashboards, in the bar at the top. A choice of several is not handed on to one that takes one."""
    links = []
    for target, title in TITLES.items():
        if target == uid:
            continue
        kept = [
            f"${{{name}:queryparam}}"
            for name in VARIABLES[uid]
            if name in VARIABLES[target] and (name not in SEVERAL.get(uid, ()) or name in SEVERAL.get(target, ()))
        ]
        links.append(
            {
                "title": title,
                "type": "link",
                "icon": "dashboard",
                "tooltip": f"{title}, same time and choice",
                "url": f"/d/{target}?{'&'.join(kept)}",
                "keepTime": True,
                "includeVars": False,
                "targetBlank": False,
                "asDropdown": False,
                "tags": [],
            }
        )
    return links


def _alerts(uid):
    """Firing alerts as marks on the time axis: those of what is shown, and those of its host."""
    host = 'job="$job",instance="$instance"'
    if uid == "kvm-fleet":
        host = 'job=~"$job",instance=~"$instance"'
    firing = f'ALERTS{{alertname=~"Kvm.*",alertstate="firing",{host}'
    if uid in ("kvm-vm", "kvm-vcpu"):
        expr = f'{firing},vm="$vm"}} or {firing},vm=""}}'
    else:
        expr = f"{firing}}}"
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "target": {"refId": "Alerts", "expr": expr},
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{vm}} {{vcpu}} {{package}} {{core}}",
        "tagKeys": "severity",
    }


def _origin():
    """A line on every page: made-up numbers must say that they are."""
    hosts = 'job=~"$job",instance=~"$instance"'
    return stat(
        "Origin of the data",
        """Whether the numbers on this page are those of real hosts, or of a synthetic one that somebody runs to see
        the dashboards and alerts at work (`vcpu-exporter demo --synthetic`), for which every number is made up.""",
        [
            query(
                f"max(kvm_exporter_synthetic{{{hosts}}}) or max(0 * kvm_exporter_build_info{{{hosts}}})",
                now=True,
            )
        ],
        "none",
        width=24,
        height=2,
        limits=steps((1, ORANGE), base=BLUE),
        mappings=[
            {
                "type": "value",
                "options": {
                    "0": {"text": "measured", "color": BLUE, "index": 0},
                    "1": {"text": "SYNTHETIC: every number here is made up", "color": ORANGE, "index": 1},
                },
            }
        ],
        graph="none",
        none="no exporter",
        size=16,
    )


def dashboard(uid, description, lines):
    return {
        "uid": uid,
        "title": TITLES[uid],
        "description": description,
        "tags": ["kvm", "vcpu-exporter"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "weekStart": "",
        "refresh": "30s",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "templating": {"list": [_datasource()] + [_variable(uid, name) for name in VARIABLES[uid][1:]]},
        "annotations": {"list": [_alerts(uid)]},
        "links": _links(uid),
        "panels": layout([_origin()] + lines),
    }
