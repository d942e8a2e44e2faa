#!/usr/bin/env python3
"""Writes the dashboards: one JSON file for each module of generator/ that describes one.

    dashboards/generate.py              writes dashboards/*.json
    dashboards/generate.py --out DIR    writes them to DIR
    dashboards/generate.py --queries    prints every panel's query as JSON, with variables still in
    dashboards/generate.py --limits     prints the limits drawn in panels, each with the alert it is taken from

Python 3.8 or later, nothing else.
"""

import argparse
import json
import pathlib
import sys

sys.dont_write_bytecode = True

from generator import fleet, host, pt, vcpu, vm  # noqa: E402
from generator.words import LIMITS  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
DASHBOARDS = (fleet, host, vm, vcpu, pt)


def queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield {
                "dashboard": dashboard["uid"],
                "panel": panel["title"],
                "refId": target["refId"],
                "expr": target["expr"],
            }


def as_text(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE, metavar="DIR")
    parser.add_argument("--queries", action="store_true")
    parser.add_argument("--limits", action="store_true")
    arguments = parser.parse_args()
    dashboards = [module.dashboard() for module in DASHBOARDS]
    if arguments.queries:
        sys.stdout.write(as_text([query for one in dashboards for query in queries(one)]))
    elif arguments.limits:
        sys.stdout.write(as_text([{"alert": alert, "limit": limit} for alert, limit in LIMITS.items()]))
    else:
        for one in dashboards:
            name = one["uid"].split("-", 1)[1]
            (arguments.out / f"{name}.json").write_text(as_text(one), encoding="utf-8")


if __name__ == "__main__":
    main()
