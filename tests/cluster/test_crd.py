"""The CRD on an API server: what it accepts, refuses, fills in and shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cluster.bad_fleets import BAD_FLEETS
from cluster.bad_models import BAD_MODELS
from cluster.processes import established, wait_for
from cluster.spec_cases import BASE, GOOD, LADDER, LIGHT, Document, changed

from gesso.api import ServiceStatus, SloStatus, WorkersStatus, parse_service, service_of

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "gesso.dev_diffusionservices.yaml"


class Services:
    """DiffusionServices in the test's namespace."""

    def __init__(self, server: Any, namespace: str) -> None:
        """By way of kubectl."""
        self._server, self.namespace = server, namespace

    def kubectl(self, *arguments: str, document: object = None, check: bool = True) -> Any:
        """kubectl in the namespace; `document` is its input."""
        text = None if document is None else json.dumps(document)
        return self._server.kubectl(*arguments, "-n", self.namespace, check=check, text=text)

    def apply(self, document: Document, *flags: str) -> None:
        """`kubectl apply`."""
        self.kubectl("apply", *flags, "-f", "-", document=document)

    def refused(self, *arguments: str, document: object = None) -> str:
        """What is said to a command that must not succeed."""
        done = self.kubectl(*arguments, document=document, check=False)
        assert done.returncode != 0, done.stdout
        return str(done.stderr)

    def get(self, name: str = "small") -> Document:
        """The object as the API server gives it."""
        found: Document = json.loads(self.kubectl("get", "dsvc", name, "-o", "json").stdout)
        return found

    def patch(self, patch: Document, *flags: str) -> None:
        """A merge patch of the object of `BASE`."""
        self.kubectl("patch", "dsvc", "small", "--type=merge", "-p", json.dumps(patch), *flags)


@pytest.fixture(scope="module")
def crd(api_server: Any) -> Any:
    """The API server with the CRD established."""
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    established(api_server, "diffusionservices.gesso.dev")
    assert wait_for(
        lambda: api_server.kubectl("explain", "dsvc.spec", check=False).returncode == 0, 30.0
    )
    return api_server


@pytest.fixture
def services(crd: Any, namespace: str) -> Services:
    return Services(crd, namespace)


@pytest.fixture
def dry(crd: Any) -> Services:
    """For dry runs, which leave nothing in the namespace."""
    return Services(crd, "default")


def told(values: object) -> Any:
    """Without what is empty: the typed model says more often than the API server that there is nothing."""
    if isinstance(values, dict):
        inner = {k: told(v) for k, v in values.items()}
        return {k: v for k, v in inner.items() if v not in (None, "", {}, [])}
    return [told(v) for v in values] if isinstance(values, list) else values


def test_nothing_is_wrong_with_the_schema(crd: Any) -> None:
    """`NonStructuralSchema` is how the API server would say so."""
    conditions = crd.kubectl(
        "get", "crd", "diffusionservices.gesso.dev", "-o", "jsonpath={.status.conditions}"
    )
    found = {c["type"]: c["status"] for c in json.loads(conditions.stdout)}
    assert found == {"NamesAccepted": "True", "Established": "True"}


@pytest.mark.parametrize("bad", [*BAD_MODELS, *BAD_FLEETS], ids=lambda b: b.name)
def test_bad_spec_is_refused_with_a_sentence(dry: Services, bad: Any) -> None:
    said = dry.refused("create", "--dry-run=server", "-f", "-", document=bad.document)
    assert bad.server in said


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD.keys())
def test_good_spec_is_what_the_typed_model_makes_of_it(
    dry: Services, changes: dict[str, Any]
) -> None:
    """Both accept it, and fill in the same."""
    document = changed(changes)
    done = dry.kubectl(*("create", "--dry-run=server", "-o", "json", "-f", "-"), document=document)
    body = json.loads(done.stdout)
    typed, read = parse_service(json.dumps(document)), service_of(body)
    assert read.spec == typed.spec
    filled = json.loads(typed.spec.model_dump_json())
    if "embedding" not in document["spec"].get("router", {}):
        # It depends on the model; only the typed model knows how.
        del filled["router"]["embedding"]
    served = told(body["spec"])
    served["cache"]["capacity"] = str(served["cache"]["capacity"])
    assert as_text(served) == as_text(told(filled))


def as_text(spec: Any) -> Any:
    """Quantities as text: the API server keeps a number as it was written."""
    if "modelMemory" in spec["workers"]:
        spec["workers"]["modelMemory"] = str(spec["workers"]["modelMemory"])
    for part in ("workers", "router"):
        for amounts in spec[part].get("resources", {}).values():
            amounts.update({k: str(v) for k, v in amounts.items()})
    return spec


def test_defaults_are_filled_in(services: Services) -> None:
    services.apply(changed({"spec.workers": {"max": 3}, "spec.variants": None}))
    spec = services.get()["spec"]
    assert spec["variants"] == [{"name": "default", "skippedSteps": [0, 5, 10, 15, 20, 25]}]
    assert (spec["workers"]["min"], spec["workers"]["maxBatch"]) == (1, 8)
    assert spec["scheduling"] == {
        "policy": "QualityAware",
        "mode": "Auto",
        "planIntervalSeconds": 10,
    }
    assert spec["cache"] == {"capacity": "1Gi", "isolation": "Tenant"}
    assert spec["slo"] == {"latencySeconds": 4, "attainment": 0.95, "minRelativeQuality": 0.9}
    assert spec["router"]["replicas"] == 1
    assert "replicas" not in spec["workers"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_samples_are_accepted(dry: Services, path: Path) -> None:
    dry.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(path))


def test_unknown_fields_are_kept_in_pod_templates_and_nowhere_else(services: Services) -> None:
    pod = {"spec": {"containers": [{"name": "worker", "lifecycle": {"preStop": {}}}]}}
    services.apply(changed({"spec.workers.podTemplate": pod}))
    assert services.get()["spec"]["workers"]["podTemplate"]["spec"] == pod["spec"]
    said = services.refused("apply", "-f", "-", document=changed({"spec.workers.gpus": 2}))
    assert 'unknown field "spec.workers.gpus"' in said


# What people see.


def test_explain_needs_no_other_page(crd: Any) -> None:
    text = " ".join(crd.kubectl("explain", "dsvc.spec.slo").stdout.split())
    assert "latencySeconds <number> -required-" in text
    assert "from arrival at the router to the last byte" in text
    assert "Three times what an image takes in full is usual" in text
    assert "predicted quality relative to the same prompt at K = 0" in text
    deep = crd.kubectl("explain", "diffusionservice.spec", "--recursive").stdout
    assert "skippedSteps" in deep
    assert "storageClassName" in deep


def test_columns_tell_health_on_one_line(services: Services) -> None:
    services.apply(BASE)
    status = ServiceStatus(
        mix="0:5,10:2,25:1",
        slo=SloStatus(attainment=0.987, summary="98.7%"),
        quality=0.953,
        workers=WorkersStatus(desired=9, ready=8, summary="8/9"),
    ).model_dump(mode="json", exclude_none=True)
    ready = condition("Ready", "True", "Serving")
    services.patch({"status": status | {"conditions": [ready]}}, "--subresource=status")
    head, row = services.kubectl("get", "dsvc").stdout.splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "WORKERS", "MIX", "SLO", "QUALITY", "AGE"]
    cells = row.split()
    assert cells[:-1] == ["small", "True", "Serving", "8/9", "0:5,10:2,25:1", "98.7%", "0.953"]
    assert re.fullmatch(r"\d+m?s?", cells[-1])
    assert len(row) <= 80
    for word in ("gesso", "all"):
        assert "diffusionservice.gesso.dev/small" in services.kubectl("get", word, "-oname").stdout


# Subresources.


def condition(kind: str, status: str, reason: str) -> Document:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def test_scale_sets_replicas_within_the_rules(services: Services) -> None:
    services.apply(BASE)
    services.kubectl("scale", "dsvc", "small", "--replicas=3")
    assert services.get()["spec"]["workers"]["replicas"] == 3
    assert "at most spec.workers.max (4)" in services.refused(
        "scale", "dsvc", "small", "--replicas=5"
    )
    services.patch(
        {"status": {"replicas": 2, "selector": "gesso.dev/service=small"}}, "--subresource=status"
    )
    url = f"/apis/gesso.dev/v1alpha1/namespaces/{services.namespace}/diffusionservices/small/scale"
    scale = json.loads(services.kubectl("get", "--raw", url).stdout)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "gesso.dev/service=small"}


def test_status_is_written_apart_from_the_spec(services: Services) -> None:
    services.apply(BASE)
    before = services.get()
    services.patch({"status": {"mix": "0:2"}, "spec": {"slo": {"attainment": 0.5}}})
    after = services.get()
    assert "mix" not in after.get("status", {})
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    services.patch(
        {"status": {"mix": "0:2"}, "spec": {"slo": {"attainment": 0.9}}}, "--subresource=status"
    )
    last = services.get()
    assert last["status"]["mix"] == "0:2"
    assert last["spec"]["slo"]["attainment"] == 0.5
    assert last["metadata"]["generation"] == after["metadata"]["generation"]


def test_conditions_of_two_writers_merge_by_type(services: Services) -> None:
    services.apply(BASE)
    identity = {k: BASE[k] for k in ("apiVersion", "kind", "metadata")}
    for manager, kind in (("one", "Ready"), ("two", "SLOMet")):
        services.apply(
            identity | {"status": {"conditions": [condition(kind, "True", "Told")]}},
            *("--server-side", f"--field-manager={manager}", "--subresource=status"),
        )
    assert {c["type"] for c in services.get()["status"]["conditions"]} == {"Ready", "SLOMet"}
    said = services.refused(
        *("patch", "dsvc", "small", "--subresource=status", "--type=merge", "-p"),
        json.dumps({"status": {"conditions": [condition("Sunny", "True", "Told")]}}),
    )
    assert 'Unsupported value: "Sunny"' in said


# Changes.


def test_model_stays_unless_it_may_be_replaced(services: Services) -> None:
    services.apply(BASE)
    other = {"spec": {"model": {"source": "some/other"}}}
    said = services.refused("patch", "dsvc", "small", "--type=merge", "-p", json.dumps(other))
    assert (
        "spec.model.source: Invalid value: some/other is not allowed: the model stays as it is "
        "(builtin://tiny-sdxl) unless allowReplace is true" in said
    )
    services.patch({"spec": {"slo": {"latencySeconds": 5}}})
    services.patch({"spec": {"model": {"source": "some/other", "allowReplace": True}}})
    assert services.get()["spec"]["model"]["source"] == "some/other"
    services.patch({"spec": {"variants": [LADDER, LIGHT]}})


@pytest.mark.parametrize(
    ("at", "volume"), [("model", "storage"), ("cache", "disk")], ids=["model", "cache"]
)
def test_volumes_stay_as_they_were_claimed(services: Services, at: str, volume: str) -> None:
    path, size = f"spec.{at}.{volume}", {"size": "20Gi"}
    services.apply(BASE)
    told = "volumes are claimed when a service is made, and stay as they are"
    for before, after in ((None, size), (size, size | {"size": "30Gi"}), (size, None)):
        services.kubectl("delete", "dsvc", "small")
        services.apply(BASE if before is None else changed({path: before}))
        services.patch({"spec": {"slo": {"latencySeconds": 5}}})
        said = services.refused(
            *("patch", "dsvc", "small", "--type=merge", "-p"),
            json.dumps({"spec": {at: {volume: after}}}),
        )
        shown = ["none" if v is None else v["size"] for v in (after, before)]
        assert f"{path}: Invalid value: {shown[0]} is not allowed: {told} ({shown[1]})" in said


def test_server_side_apply_keeps_what_others_own(services: Services) -> None:
    services.apply(BASE, "--server-side", "--field-manager=git")
    services.kubectl("scale", "dsvc", "small", "--replicas=4")
    without = changed({"spec.workers": {"min": 1, "max": 4}})
    services.apply(without, "--server-side", "--field-manager=git")
    assert services.get()["spec"]["workers"]["replicas"] == 4
    said = services.refused(
        *("apply", "--server-side", "--field-manager=git", "-f", "-"), document=BASE
    )
    assert 'conflict with "kubectl"' in said
    assert ".spec.workers.replicas" in said
