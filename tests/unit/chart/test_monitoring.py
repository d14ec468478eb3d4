"""Alerts and dashboards ask for metrics that there are."""

import json
import re
from collections.abc import Iterator
from types import MappingProxyType

import pytest
import yaml
from chart_kit import ROOT
from router_kit import Clock, ScriptedPool, router

from gesso_operator.cluster.metrics import OperatorMetrics
from gesso_router.metrics import registry_of

RULES = ROOT / "manifests" / "rules" / "gesso.yaml"
DASHBOARDS = sorted((ROOT / "manifests" / "dashboards").glob("*.json"))
NAME = re.compile(r"\bgesso_[a-z0-9_]+")


class NoService:
    """A manager that looks after nothing."""

    leads, status_writes, decisions = True, 0, MappingProxyType({})

    def gauges(self):
        return {}

    def rounds(self):
        return {}


def known() -> set[str]:
    """Names of the samples that a router and an operator expose; counters end in _total."""
    names = set()
    routers = registry_of(router(ScriptedPool(), Clock())).collect()
    for family in (*routers, *OperatorMetrics(NoService()).collect()):
        names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


def rules() -> Iterator[dict]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def expressions(dashboard) -> list[str]:
    document = json.loads(dashboard.read_text())
    panels = [t["expr"] for p in document["panels"] for t in p["targets"]]
    variables = [
        v["query"]["query"] for v in document["templating"]["list"] if v["type"] == "query"
    ]
    return panels + variables


def test_every_alert_asks_for_metrics_that_there_are():
    names = known()
    assert names
    for rule in rules():
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule["alert"]
        assert asked <= names, rule["alert"]


def test_every_alert_says_what_to_do():
    found = list(rules())
    assert found
    for rule in found:
        assert rule["alert"].startswith("Gesso")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda p: p.stem)
def test_every_panel_asks_for_metrics_that_there_are(dashboard):
    names = known()
    for expression in expressions(dashboard):
        asked = set(NAME.findall(expression))
        assert asked, expression
        assert asked <= names, expression


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda p: p.stem)
def test_panels_have_a_place_and_a_description(dashboard):
    panels = json.loads(dashboard.read_text())["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken = set()
    for p in panels:
        assert p["description"]
        at = p["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
