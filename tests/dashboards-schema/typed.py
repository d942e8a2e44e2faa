#!/usr/bin/env python3
"""Writes dashboards as TypeScript: typed.py TYPES_DIR OUT DASHBOARD.json...

Each object becomes a literal of Grafana's own type for it, so that the compiler refuses a misspelt option, a value that
is none of an enum's, and a number where text belongs. TYPES_DIR has PANEL/panelcfg/x/.
"""

import json
import pathlib
import sys

# Enums of Grafana are written as their plain values; what a type asks for beyond that is what our JSON must have.
HEAD = """\
import type { Dashboard, AnnotationQuery, FieldConfig } from '@grafana/schema';
// The later package no longer has it.
import type { PrometheusDataQuery } from
    './node_modules/schema-10/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen';

type Plain<T> = T extends string ? `${T}` : T extends number | boolean | bigint | null | undefined ? T
    : T extends (infer Item)[] ? Plain<Item>[] : T extends object ? { [Key in keyof T]: Plain<T[Key]> } : T;
// Grafana fills in the options of a panel that are left out.
type Options<T> = Plain<Partial<T>>;
// What a data source of Prometheus adds to an annotation.
type Annotation = Omit<Plain<AnnotationQuery>, 'target'> & {
    target: Plain<PrometheusDataQuery>; titleFormat?: string; textFormat?: string; tagKeys?: string;
};
"""


def literal(kind, name, value):
    return f"export const {name}: {kind} = {json.dumps(value, indent=1, ensure_ascii=False)};\n"


class Writer:
    def __init__(self, types):
        self.types = types
        self.lines = [HEAD]
        self.kinds = set()

    def file(self, kind):
        """The file with a panel's types, which releases name differently."""
        folder = pathlib.Path(self.types) / kind / "panelcfg" / "x"
        return next(folder.glob("*types.gen.d.ts")).name[: -len(".d.ts")]

    def panel_types(self, kind):
        folder = kind.replace("-", "")
        name = folder.capitalize()
        if kind not in self.kinds:
            self.kinds.add(kind)
            path = f"{self.types}/{folder}/panelcfg/x/{self.file(folder)}"
            self.lines.append(f"import type * as {name} from '{path}';\n")
        return name

    def panel(self, name, panel):
        where = f"{name}_{panel['id']}"
        if panel["type"] == "row":
            return
        kind = self.panel_types(panel["type"])
        self.lines.append(f"// {panel['title']}\n")
        self.lines.append(literal(f"Options<{kind}.Options>", f"{where}_options", panel["options"]))
        if panel["type"] not in ("text", "stat", "bargauge"):
            custom = panel["fieldConfig"]["defaults"]["custom"]
            self.lines.append(literal(f"Options<{kind}.FieldConfig>", f"{where}_custom", custom))
        self.lines.append(literal("Plain<PrometheusDataQuery>[]", f"{where}_targets", panel.get("targets", [])))
        self.overrides(f"{where}_override", kind, panel)

    def overrides(self, where, kind, panel):
        """An override sets properties by name: custom.NAME is the panel's own, what has no dot is of every panel."""
        for at, override in enumerate(panel.get("fieldConfig", {}).get("overrides", [])):
            custom, common = {}, {}
            for one in override["properties"]:
                name = one["id"].split(".", 1)
                # Renamed in 12.2: there it is the other one, and each release ignores what it does not know.
                if one["id"] in ("custom.hidden", "custom.hideFrom") and panel["type"] == "table":
                    continue
                if name[0] == "custom":
                    custom[name[1]] = one["value"]
                else:
                    common[one["id"]] = one["value"]
            self.lines.append(literal(f"Options<{kind}.FieldConfig>", f"{where}_{at}_custom", custom) if custom else "")
            self.lines.append(literal("Options<Omit<FieldConfig, 'custom'>>", f"{where}_{at}", common))

    def dashboard(self, name, dashboard):
        annotations = dashboard["annotations"]["list"]
        self.lines.append(literal("Annotation[]", f"{name}_annotations", annotations))
        whole = {**dashboard, "annotations": {"list": []}}
        # What an import reads, and a dashboard does not have.
        for key in ("__inputs", "__requires"):
            whole.pop(key, None)
        self.lines.append(literal("Plain<Dashboard>", name, whole))
        for panel in dashboard["panels"]:
            self.panel(name, panel)
            for inner in panel.get("panels", []):
                self.panel(name, inner)


def main():
    types, out, *files = sys.argv[1:]
    writer = Writer(types)
    for file in files:
        path = pathlib.Path(file)
        writer.dashboard(path.stem.replace("-", "_"), json.loads(path.read_text(encoding="utf-8")))
    pathlib.Path(out).write_text("".join(writer.lines), encoding="utf-8")


if __name__ == "__main__":
    main()
