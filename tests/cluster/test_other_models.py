"""Above what the deepest level carries, workers go over to another model, and come back when the load falls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.installed import ROOT, Installed
from cluster.load import Load
from cluster.node import Cluster

SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
WORKERS = "gesso.dev/service=family,app.kubernetes.io/component=worker"
_CALM, _FLOOD, _MOST = 0.4, 8.0, 25.0


@pytest.fixture
def gesso(cluster: Cluster, tmp_path: Path) -> Iterator[Installed]:
    """Gesso, installed for this test."""
    found = Installed(cluster)
    found.prepare()
    found.install(tmp_path)
    yield found
    found.clear()


def service() -> dict[str, Any]:
    """The sample with another model of a tenth of the steps."""
    body: dict[str, Any] = yaml.safe_load(SAMPLE.read_text())
    body["metadata"]["name"] = "family"
    fast = {"source": "builtin://tiny-sdxl", "steps": 5, "quality": 0.85}
    body["spec"]["variants"].append({"name": "fast", "model": fast})
    # A deadline that a busy machine makes in full, too.
    body["spec"]["slo"] |= {"latencySeconds": 20, "minRelativeQuality": 0.7}
    return body


@pytest.mark.timeout(600)
def test_workers_go_over_and_come_back(gesso: Installed) -> None:
    kubectl = gesso.cluster.kubectl
    kubectl("apply", "-f", "-", text=yaml.safe_dump(service()))
    gesso.wait("ready", lambda: gesso.condition("family", "Ready").get("status") == "True", 150)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = gesso.service("family")["status"]
        return found

    def labelled() -> list[str]:
        pods = gesso.pods(WORKERS)
        return sorted(p["metadata"]["labels"].get("gesso.dev/model", "") for p in pods)

    with Load(gesso.address("family"), _CALM) as load:
        load.rate = _FLOOD

        def gone_over() -> bool:
            # What is too much for the deepest level depends on the machine.
            load.rate = min(_MOST, load.rate * 1.003)
            return "fast:" in status()["mix"]

        gesso.wait("a worker that holds the other model", gone_over, 150)
        assert "fast" in labelled()
        told = [p for p in status()["planHistory"] if "fast:" in p["mix"]]
        assert told
        assert all(p["message"] for p in told)
        events = kubectl(
            *("get", "events", "--field-selector=involvedObject.kind=DiffusionService"),
            *("-o", "custom-columns=MESSAGE:.message"),
        ).stdout
        assert "fast:" in events
        load.rate = _CALM
        gesso.wait("their own model again", lambda: "fast" not in status()["mix"], 240)
        gesso.wait("no label of another", lambda: labelled() == ["", ""], 30)
        gesso.wait("both", lambda: status()["workers"]["ready"] == 2, 90)
    assert load.lost() == []
