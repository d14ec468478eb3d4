"""What goes wrong on a real cluster ends in a condition with a reason and a sentence, and heals after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from cluster.installed import ROOT, Installed, merge_patch
from cluster.load import Load
from cluster.node import Cluster

pytestmark = pytest.mark.timeout(240)
SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"


@pytest.fixture(scope="module")
def gesso(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Gesso, installed for all tests here."""
    found = Installed(cluster)
    found.prepare()
    found.install(tmp_path_factory.mktemp("values"))
    yield found
    found.clear()


@pytest.fixture
def apply(gesso: Installed) -> Iterator[Callable[..., str]]:
    """Applies the sample under another name, with parts of its spec changed; deletes it afterwards."""
    made: list[str] = []

    def apply(name: str, **spec: dict[str, Any]) -> str:
        body = yaml.safe_load(SAMPLE.read_text())
        body["metadata"]["name"] = name
        # One worker is enough to see what is wrong with it.
        body["spec"]["workers"]["replicas"] = 1
        for part, fields in spec.items():
            body["spec"].setdefault(part, {}).update(fields)
        gesso.cluster.kubectl("apply", "-f", "-", text=json.dumps(body))
        made.append(name)
        return name

    yield apply
    for name in made:
        gesso.cluster.kubectl("delete", "dsvc", name, "--timeout=20s")
    left = ",".join(made)
    gesso.wait("pods gone", lambda: not gesso.pods(f"gesso.dev/service in ({left})"), 120)


def told(gesso: Installed, name: str, reason: str, words: str, seconds: float = 90) -> None:
    """Waits until the service is not ready for a reason, in words that a person understands."""

    def so() -> bool:
        ready = gesso.condition(name, "Ready")
        # A pod that starts again and again is told of in other words now and then.
        row = gesso.cluster.kubectl("get", "dsvc", name).stdout.splitlines()[1].split()
        return (
            ready.get("status") == "False"
            and ready["reason"] == reason
            and words in ready["message"]
            and row[1:3] == ["False", reason]
        )

    gesso.wait(f"{name} not ready: {reason}, {words}", so, seconds)


def heals(gesso: Installed, name: str) -> None:
    """Waits until the service is ready."""
    gesso.wait(f"{name} ready", lambda: gesso.condition(name, "Ready").get("status") == "True", 120)


def test_a_secret_that_is_missing(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("secretive", model={"tokenSecret": {"name": "hf-token"}})
    told(gesso, name, "SecretMissing", 'secret "hf-token" not found')
    gesso.cluster.kubectl("create", "secret", "generic", "hf-token", "--from-literal=token=x")
    heals(gesso, name)
    gesso.cluster.kubectl("delete", "secret", "hf-token")


def test_an_image_that_cannot_be_pulled(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("pulling", workers={"image": "localhost/no-such-image:1"})
    told(gesso, name, "ImagePullFailed", "localhost/no-such-image:1")
    image = {"image": "localhost/gesso-worker:test"}
    gesso.cluster.kubectl("patch", "dsvc", name, *merge_patch(workers=image))
    heals(gesso, name)


def test_a_model_that_nobody_knows(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("modelless", model={"source": "nobody/no-such-model"})
    told(gesso, name, "Crashing", "nobody/no-such-model", 120)
    refused = gesso.cluster.kubectl(
        "patch", "dsvc", name, *merge_patch(model={"source": "builtin://tiny-sdxl"}), check=False
    )
    assert "unless allowReplace is true" in refused.stderr
    fixed = {"source": "builtin://tiny-sdxl", "allowReplace": True}
    gesso.cluster.kubectl("patch", "dsvc", name, *merge_patch(model=fixed))
    heals(gesso, name)


def test_a_gpu_too_few(gesso: Installed, apply: Callable[..., str]) -> None:
    gesso.cluster.set_gpus(1)
    name = apply("gpus", workers={"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}})
    told(gesso, name, "InsufficientGPU", "1 of 2 workers are ready, and those take the load", 90)
    assert gesso.mixed(name) == {0: 1}
    gesso.cluster.set_gpus(2)
    heals(gesso, name)
    gesso.cluster.set_gpus(0)


def test_rights_taken_away(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("rightless")
    heals(gesso, name)
    role = gesso.cluster.get("clusterrole", "gesso-operator")
    kept = [r for r in role["rules"] if "statefulsets" not in r["resources"]]
    watching = {
        "apiGroups": ["apps"],
        "resources": ["statefulsets"],
        "verbs": ["get", "list", "watch"],
    }
    body = {**role, "rules": [*kept, watching]}
    gesso.cluster.kubectl("replace", "-f", "-", text=json.dumps(_bare(body)))
    gesso.cluster.kubectl("scale", "dsvc", name, "--replicas=2")
    told(gesso, name, "Forbidden", 'cannot patch resource "statefulsets"')
    gesso.cluster.kubectl("replace", "-f", "-", text=json.dumps(_bare(role)))
    gesso.wait("two workers", lambda: gesso.service(name)["status"]["workers"]["ready"] == 2, 120)


def test_what_others_change_by_hand_comes_back(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("tampered")
    heals(gesso, name)
    kubectl = gesso.cluster.kubectl
    kubectl("scale", "statefulset", f"{name}-worker", "--replicas=3")
    kubectl(
        "patch",
        "configmap",
        f"{name}-service",
        "--type=merge",
        "-p",
        '{"data":{"service.yaml":"{}"}}',
    )
    empty = '{"data":{"plan.json":"{}"}}'
    kubectl("patch", "configmap", f"{name}-plan", "--type=merge", "-p", empty)
    kubectl("delete", "service", name)

    def restored() -> bool:
        spec = gesso.cluster.get("statefulset", f"{name}-worker")["spec"]
        text = gesso.cluster.get("configmap", f"{name}-service")["data"]["service.yaml"]
        plan = gesso.cluster.get("configmap", f"{name}-plan")["data"]["plan.json"]
        gesso.address(name)
        return spec["replicas"] == 1 and "tiny-sdxl" in text and "revision" in plan

    assert gesso.wait("all of it as it was", restored, 20) < 20
    gesso.wait(
        "one worker",
        lambda: (
            len(gesso.pods(f"gesso.dev/service={name},app.kubernetes.io/component=worker")) == 1
        ),
        120,
    )
    heals(gesso, name)


def test_what_is_optional_comes_and_goes(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("guarded")
    gesso.wait("a monitor", lambda: gesso.cluster.get("podmonitor", f"{name}-router"), 30)
    policy = ("networkpolicy", f"{name}-worker")
    gesso.cluster.kubectl("patch", "dsvc", name, *merge_patch(networkPolicy=True))
    gesso.wait("a policy", lambda: gesso.cluster.get(*policy), 20)
    gesso.cluster.kubectl("patch", "dsvc", name, *merge_patch(networkPolicy=False))

    def gone() -> bool:
        return gesso.cluster.kubectl("get", *policy, check=False).returncode != 0

    gesso.wait("no policy", gone, 20)


def test_recommend_plans_and_touches_nothing(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("advised", scheduling={"mode": "Recommend"})
    heals(gesso, name)

    def recommended() -> bool:
        ready = gesso.condition(name, "PlanReady")
        return ready["reason"] == "Recommended" and "workers keep their levels" in ready["message"]

    gesso.wait("a recommendation", recommended, 30)
    assert gesso.service(name)["status"]["desiredMix"] == "0:1"
    gesso.cluster.kubectl("patch", "dsvc", name, *merge_patch(scheduling={"mode": "Off"}))
    gesso.wait(
        "no more plans", lambda: gesso.condition(name, "PlanReady")["reason"] == "ModeOff", 20
    )


def test_stopped_by_setting_and_started_again(gesso: Installed, apply: Callable[..., str]) -> None:
    name = apply("sleeper")
    heals(gesso, name)
    gesso.cluster.kubectl("scale", "dsvc", name, "--replicas=0")
    told(gesso, name, "Stopped", "spec.workers.replicas is 0")
    selector = f"gesso.dev/service={name},app.kubernetes.io/component=worker"
    gesso.wait("no pods", lambda: not gesso.pods(selector), 120)
    gesso.cluster.kubectl("scale", "dsvc", name, "--replicas=1")
    heals(gesso, name)


def test_an_elastic_fleet_grows_with_the_load_and_keeps_its_bounds(
    gesso: Installed, apply: Callable[..., str]
) -> None:
    workers = {"replicas": None, "min": 1, "max": 2, "startSeconds": 15}
    name = apply("elastic", workers=workers, scheduling={"planIntervalSeconds": 1})
    heals(gesso, name)
    selector = f"gesso.dev/service={name},app.kubernetes.io/component=worker"
    assert len(gesso.pods(selector)) == 1
    with Load(gesso.address(name), 4.0):
        gesso.wait("a second worker", lambda: len(gesso.pods(selector)) == 2, 60)
        events = gesso.cluster.kubectl(
            "get", "events", "-o", "custom-columns=R:.reason,M:.message"
        ).stdout
        assert "1 worker to 2: " in events
        gesso.wait("it serves", lambda: gesso.service(name)["status"]["workers"]["ready"] == 2, 120)


def _bare(body: dict[str, Any]) -> dict[str, Any]:
    """Without what only the API server writes."""
    meta = {
        k: v
        for k, v in body["metadata"].items()
        if k not in ("resourceVersion", "uid", "managedFields")
    }
    return {**body, "metadata": meta}
