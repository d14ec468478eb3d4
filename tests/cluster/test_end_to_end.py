"""The whole of it on a real cluster: install, apply, serve, swing, edit, scale, kill, roll, uninstall.

One walk, since each step begins where the last one ended. With GESSO_WALKTHROUGH=1 it writes the transcript,
docs/walkthrough.md.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import audit
from cluster.installed import ROOT, SYSTEM, Installed, merge_patch
from cluster.load import Load, ask, png
from cluster.node import Cluster
from cluster.walk import Walk

SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
WORKERS = "gesso.dev/service=tiny,app.kubernetes.io/component=worker"
ROUTERS = "gesso.dev/service=tiny,app.kubernetes.io/component=router"
_CALM = 0.4
#: The sample's SLO, s, and how many times an image alone it is at least: on a slow machine, four seconds are
#: not enough for two workers to make anything in full.
_SLO, _SLO_IMAGES = 4, 6


@pytest.fixture
def gesso(cluster: Cluster) -> Iterator[Installed]:
    """Gesso, not installed yet; afterwards nothing is left of it."""
    found = Installed(cluster)
    found.prepare()
    yield found
    found.clear()


@pytest.mark.timeout(900)
def test_walk(gesso: Installed, tmp_path: Path) -> None:
    walk, cluster = Walk(), gesso.cluster
    kubectl = cluster.kubectl
    _install(gesso, walk, tmp_path)
    host = gesso.address("tiny")
    status, body = ask(host, "a large red star above a small blue ring")
    assert status == 200
    assert png(body).startswith(b"\x89PNG")
    walk.shown(
        "curl -s http://$ROUTER/v1/images/generations -H 'Content-Type: application/json' "
        '-d \'{"prompt": "a large red star above a small blue ring", "size": "64x64"}\'',
        f'{{"created": {body["created"]}, "data": [{{"b64_json": "{body["data"][0]["b64_json"][:24]}…"}}]}}',
    )
    began = time.monotonic()
    assert ask(host, "a small green square below a large white ring")[0] == 200
    slo = max(_SLO, math.ceil(_SLO_IMAGES * (time.monotonic() - began)))
    if slo > _SLO:
        walk.told(f"This machine is slow; the SLO is {slo} s here, not {_SLO}.")
    changes = merge_patch(router={"replicas": 2}, slo={"latencySeconds": slo})
    kubectl("patch", "dsvc", "tiny", *changes)
    gesso.wait("two routers", lambda: _ready(gesso, ROUTERS) == 2, 90)
    with Load(host, _CALM) as load:
        _swing(gesso, walk, load)
        _edit(gesso, walk, slo)
        _scale(gesso, walk)
        _kills(gesso, walk, cluster, load)
        _roll(gesso, walk, load)
    assert load.lost() == []
    counts = load.counts()
    walk.told(
        f"In all of this {sum(counts.values())} requests were made: {counts['served']} served, "
        f"{counts['refused']} refused at once, {len(load.lost())} lost."
    )
    _rights(gesso)
    _uninstall(gesso, walk)
    if os.environ.get("GESSO_WALKTHROUGH"):
        walk.write(ROOT / "docs" / "walkthrough.md")


def _install(gesso: Installed, walk: Walk, folder: Path) -> None:
    walk.chapter("Install", "The operator comes by Helm; a service is one object.")
    gesso.install(folder)
    walk.shown(
        "helm install gesso charts/gesso -n gesso-system --create-namespace --wait",
        gesso.helm("list", "-n", SYSTEM),
    )
    gesso.cluster.kubectl("apply", "-f", str(SAMPLE))
    gesso.cluster.kubectl(
        "wait", "--for=condition=Ready", "dsvc/tiny", "--timeout=150s", timeout=160
    )
    walk.shown(
        "kubectl apply -f manifests/samples/tiny.yaml && kubectl wait --for=condition=Ready dsvc/tiny",
        "diffusionservice.gesso.dev/tiny created\ndiffusionservice.gesso.dev/tiny condition met",
    )
    walk.shown("kubectl get dsvc", gesso.cluster.kubectl("get", "dsvc").stdout)
    shown = gesso.cluster.kubectl("get", "pods", "-L", "gesso.dev/skipped-steps").stdout
    walk.shown("kubectl get pods -L gesso.dev/skipped-steps", shown)


def _swing(gesso: Installed, walk: Walk, load: Load) -> None:
    walk.chapter("The load swings", "More than the fleet carries in full, and the mix follows.")
    time.sleep(8)
    load.rate = 6.0
    seconds = gesso.wait("workers that skip steps", lambda: any(k for k in gesso.mixed("tiny")), 60)
    walk.told(f"{seconds:.0f} s after the load rose from {_CALM:g} to 6 images/s:")
    time.sleep(4)
    walk.shown("kubectl get dsvc tiny", gesso.cluster.kubectl("get", "dsvc", "tiny").stdout)
    load.rate = _CALM
    gesso.wait("all workers in full again", lambda: not any(k for k in gesso.mixed("tiny")), 120)
    events = gesso.cluster.kubectl(
        *("get", "events", "--field-selector=involvedObject.kind=DiffusionService"),
        *("-o", "custom-columns=REASON:.reason,MESSAGE:.message"),
    ).stdout
    walk.shown(
        "kubectl get events --field-selector=involvedObject.kind=DiffusionService "
        "-o custom-columns=REASON:.reason,MESSAGE:.message",
        events,
    )


def _edit(gesso: Installed, walk: Walk, slo: int) -> None:
    walk.chapter("The SLO is edited", "A new plan at once, and no pod restarts.")
    before = {p["metadata"]["uid"] for p in gesso.pods("gesso.dev/service=tiny")}
    gesso.cluster.kubectl("patch", "dsvc", "tiny", *merge_patch(slo={"latencySeconds": slo + 1}))

    def plan() -> dict[str, str]:
        """The plan that the edit led to; prices may have followed it already."""
        history = gesso.service("tiny")["status"]["planHistory"]
        found: dict[str, str] = next(
            (p for p in history if f"latencySeconds {slo} to {slo + 1}" in p["message"]), {}
        )
        return found

    seconds = gesso.wait("a plan for the new SLO", plan, 20)
    assert plan()["reason"] == "SpecChanged"
    assert {p["metadata"]["uid"] for p in gesso.pods("gesso.dev/service=tiny")} == before
    walk.told(f"{seconds:.1f} s after the edit:")
    walk.shown(
        "kubectl patch dsvc tiny --type=merge -p "
        f'\'{{"spec":{{"slo":{{"latencySeconds":{slo + 1}}}}}}}\' && '
        "kubectl get dsvc tiny -o jsonpath='{.status.plan.reason}: {.status.plan.message}'",
        f"{plan()['reason']}: {plan()['message']}",
    )


def _scale(gesso: Installed, walk: Walk) -> None:
    walk.chapter("A third worker", "By the scale subresource, as with a Deployment.")
    gesso.cluster.kubectl("scale", "dsvc", "tiny", "--replicas=3")
    gesso.wait("three workers", lambda: _serving(gesso) == 3, 120)
    shown = gesso.cluster.kubectl("get", "dsvc", "tiny").stdout
    walk.shown("kubectl scale dsvc tiny --replicas=3 && kubectl get dsvc tiny", shown)
    gesso.cluster.kubectl("scale", "dsvc", "tiny", "--replicas=2")
    gesso.wait("two workers again", lambda: len(gesso.pods(WORKERS)) == 2, 120)
    took = gesso.service("tiny")["status"]["workers"]["startSeconds"]
    assert 1 <= took <= 120
    assert (
        '"message": "handed_over", "worker": "tiny-worker-2", "entries": ' in gesso.operator_log()
    )


def _kills(gesso: Installed, walk: Walk, cluster: Cluster, load: Load) -> None:
    walk.chapter("What breaks", "Each under load, with two routers.")
    force = ("--grace-period=0", "--force", "--wait=false")
    cluster.kubectl("delete", "pod", "tiny-worker-1", *force)
    gesso.wait("one worker", lambda: _serving(gesso) < 2, 30)
    seconds = gesso.wait("two workers", lambda: _serving(gesso) == 2, 120)
    walk.told(f"- A worker's pod is killed: {seconds:.0f} s until another serves in its place.")
    revision = _plan(gesso)["revision"]
    operator = gesso.pods("app.kubernetes.io/component=operator", SYSTEM)
    cluster.kubectl("delete", "pod", operator[0]["metadata"]["name"], "-n", SYSTEM, *force)
    seconds = gesso.wait(
        "a plan by the next operator", lambda: _plan(gesso)["revision"] > revision, 90
    )
    walk.told(f"- The operator's pod is killed: {seconds:.0f} s until the next one plans.")
    router = gesso.pods(ROUTERS)[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", router, *force)
    seconds = gesso.wait("two routers", lambda: _ready(gesso, ROUTERS) == 2, 90)
    walk.told(f"- A router's pod is killed: {seconds:.0f} s until there are two again.")
    since = load.now_s
    cluster.kill_api_server()
    time.sleep(30)
    served = load.counts(since)["served"]
    cluster.start_api_server()
    assert served > 0
    revision = _plan(gesso)["revision"]
    load.rate = 6.0
    seconds = gesso.wait(
        "a plan after the API server is back", lambda: _plan(gesso)["revision"] > revision, 90
    )
    load.rate = _CALM
    walk.told(
        f"- The API server is away for 30 s: {served} images are served meanwhile, and {seconds:.0f} s "
        "after it is back there is a new plan."
    )
    gesso.wait(
        "the service ready", lambda: gesso.condition("tiny", "Ready").get("status") == "True", 90
    )


def _roll(gesso: Installed, walk: Walk, load: Load) -> None:
    walk.chapter(
        "A new image", "Workers are replaced one at a time, each once the one before it serves."
    )
    image = "localhost/gesso-worker:test2"
    gesso.cluster.kubectl("patch", "dsvc", "tiny", *merge_patch(workers={"image": image}))
    fewest, end = 2, time.monotonic() + 180
    while _images(gesso) != {image} or _ready(gesso, WORKERS) < 2:
        assert time.monotonic() < end, gesso.shown()
        fewest = min(fewest, _ready(gesso, WORKERS))
        time.sleep(0.3)
    assert fewest >= 1
    shown = gesso.cluster.kubectl(
        *("get", "pods", "-l", WORKERS),
        *(
            "-o",
            "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image,READY:.status.containerStatuses[0].ready",
        ),
    ).stdout
    walk.shown(
        f'kubectl patch dsvc tiny --type=merge -p \'{{"spec":{{"workers":{{"image":"{image}"}}}}}}\'',
        shown,
    )


def _rights(gesso: Installed) -> None:
    """Everything that the operator may do it has done here, and it asked for nothing else."""
    kubectl, log = gesso.cluster.kubectl, gesso.cluster.audit_log
    policy = ("networkpolicy", "tiny-worker")
    kubectl("patch", "dsvc", "tiny", *merge_patch(networkPolicy=True))
    gesso.wait("a network policy", lambda: gesso.cluster.get(*policy), 30)
    kubectl("patch", "dsvc", "tiny", *merge_patch(networkPolicy=False))
    gesso.wait("none", lambda: kubectl("get", *policy, check=False).returncode != 0, 30)
    operator = "gesso-operator"
    roles = [
        gesso.cluster.get("clusterrole", operator),
        gesso.cluster.get("role", f"{operator}-lease", "-n", SYSTEM),
    ]
    # The admission plugin that needs it asks about it, which is no request of its own.
    asked_about = {("gesso.dev", "diffusionservices/finalizers", "update")}
    may, account = audit.granted(roles), f"{SYSTEM}:{operator}"
    assert may - asked_about == audit.used(log, account)
    # A new Role takes the API server a moment.
    assert audit.refused(log, account) <= may


def _uninstall(gesso: Installed, walk: Walk) -> None:
    walk.chapter(
        "Uninstall",
        "The service goes on without an operator; deleted, it takes all that it owned with it.",
    )
    walk.shown("helm uninstall gesso -n gesso-system", gesso.uninstall())
    assert ask(gesso.address("tiny"), "a small red ring left of a large blue circle")[0] == 200
    gesso.cluster.kubectl("delete", "dsvc", "tiny", "--timeout=20s")
    gesso.wait("nothing left", lambda: not _left(gesso), 120)
    assert gesso.cluster.kubectl("get", "crd", "diffusionservices.gesso.dev").returncode == 0
    owned = gesso.cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").stdout
    assert "gesso" not in owned
    shown = gesso.cluster.kubectl(
        "get", "all,cm,sa,pdb", "-l", "app.kubernetes.io/name=gesso"
    ).stderr
    walk.shown(
        "kubectl delete dsvc tiny; kubectl get all,cm,sa,pdb -l app.kubernetes.io/name=gesso", shown
    )


def _left(gesso: Installed) -> str:
    kinds = "pods,services,configmaps,serviceaccounts,deployments,statefulsets,poddisruptionbudgets"
    return gesso.cluster.kubectl("get", kinds, "-l", "gesso.dev/service=tiny", "-o", "name").stdout


def _plan(gesso: Installed) -> dict[str, object]:
    found: dict[str, object] = gesso.service("tiny")["status"]["plan"]
    return found


def _serving(gesso: Installed) -> int:
    ready: int = gesso.service("tiny")["status"]["workers"]["ready"]
    return ready


def _ready(gesso: Installed, selector: str) -> int:
    return sum(
        any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in p["status"].get("conditions", [])
        )
        and "deletionTimestamp" not in p["metadata"]
        for p in gesso.pods(selector)
    )


def _images(gesso: Installed) -> set[str]:
    return {p["spec"]["containers"][0]["image"] for p in gesso.pods(WORKERS)}
