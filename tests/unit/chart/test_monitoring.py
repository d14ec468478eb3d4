"""Alerts and dashboards ask for metrics that there are."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from chart_kit import ROOT

from gesso.metrics.catalogue import ROUTER, SAMPLES

RULES = ROOT / "manifests" / "rules" / "gesso.yaml"
DASHBOARDS = sorted((ROOT / "manifests" / "dashboards").glob("*.json"))
NAME = re.compile(r"\bgesso_[a-z0-9_]+")
SELECTED = re.compile(r"\b(gesso_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r"\b([a-z_]+)\s*(?:=~|!~|!=|=)")
#: What Prometheus adds of its own.
TARGET = {"namespace", "pod", "le"}


def known() -> set[str]:
    """Names of the samples that the parts expose: tests/unit/observability holds them to the catalogue."""
    return set(SAMPLES)


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


def test_what_every_router_tells_of_a_worker_is_not_added_up():
    asked = [e for d in DASHBOARDS for e in expressions(d)] + [rule["expr"] for rule in rules()]
    shared = [s.name for s in ROUTER if "worker" in s.labels]
    found = [e for e in asked if any(re.search(rf"{name}\b", e) for name in shared)]
    assert found
    for expression in found:
        assert expression.startswith("max by (namespace, worker"), expression


def test_unanswered_shards_are_counted_against_the_shards_that_were_asked():
    asked = [e for d in DASHBOARDS for e in expressions(d)] + [rule["expr"] for rule in rules()]
    found = [e for e in asked if "gesso_router_unanswered_lookups_total" in e]
    assert len(found) == 2
    for expression in found:
        assert set(NAME.findall(expression)) == {
            "gesso_router_unanswered_lookups_total",
            "gesso_router_probed_shards_total",
        }


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


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda p: p.stem)
def test_every_selector_names_labels_that_the_metric_has(dashboard):
    asked = [*expressions(dashboard), *(rule["expr"] for rule in rules())]
    checked = 0
    for expression in asked:
        for name, selector in SELECTED.findall(expression):
            assert set(LABEL.findall(selector)) <= {*SAMPLES[name].labels, *TARGET}, expression
            checked += 1
    assert checked > 10
