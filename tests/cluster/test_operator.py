"""The operator on a real API server without a node: who may act, what it writes, what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.operator_process import eventually, operator
from cluster.processes import established, free_port

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "manifests" / "samples" / "tiny.yaml").read_text()


@pytest.fixture
def crd(api_server: Any) -> None:
    """The CRD, established."""
    api_server.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    established(api_server, "diffusionservices.gesso.dev")


def get(api_server: Any, namespace: str, *what: str) -> dict[str, Any]:
    shown = api_server.kubectl(
        *("get", *what, "-n", namespace, "-o", "json", "--show-managed-fields"), check=False
    ).stdout
    found: dict[str, Any] = json.loads(shown or "{}")
    return found


def test_two_operators_and_one_acts(
    api_server: Any, crd: None, namespace: str, tmp_path: Path
) -> None:
    config = api_server.kubeconfig
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(config, "first", namespace, tmp_path) as first:
        eventually("the first leads", lambda: first.leads)
        eventually("workers", lambda: get(api_server, namespace, "sts/tiny-worker"))
        with operator(config, "second", namespace, tmp_path) as second:
            assert not second.leads
            assert not second.said("applied")
            first.end(signal.SIGKILL)
            api_server.kubectl("delete", "sts/tiny-worker", "-n", namespace)
            seconds = eventually("the second leads", lambda: second.leads, 40)
            # Nobody can know sooner that the first is gone.
            assert seconds > 5
            eventually("workers again", lambda: get(api_server, namespace, "sts/tiny-worker"))
            assert second.end() == 0
            spec = get(api_server, namespace, "lease/gesso-operator")["spec"]
            # Let go: the next one need not wait.
            assert not spec.get("holderIdentity")
            assert spec["leaseTransitions"] >= 1


def test_a_service_that_went_while_nobody_could_tell_is_let_go(
    api_server: Any, crd: None, namespace: str, tmp_path: Path
) -> None:
    if not hasattr(api_server, "kill_api_server"):
        pytest.skip("a cluster that was given is not killed")
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(api_server.kubeconfig, "op", namespace, tmp_path) as op:
        eventually("workers", lambda: get(api_server, namespace, "sts/tiny-worker"))
        # No watch is open while it is deleted.
        os.kill(op.process.pid, signal.SIGSTOP)
        api_server.kill_api_server()
        api_server.start_api_server()
        api_server.kubectl("delete", "dsvc/tiny", "-n", namespace, "--wait=false")
        # One that starts anew remembers nothing of it: watches cannot go on where they stopped.
        api_server.kill_api_server()
        api_server.start_api_server()
        os.kill(op.process.pid, signal.SIGCONT)
        eventually("it hears of it", lambda: op.said("missed_deletions"), 60)
        api_server.kubectl("delete", "sts/tiny-worker", "-n", namespace)
        for _ in range(5):
            assert not get(api_server, namespace, "sts/tiny-worker")
            time.sleep(1)


def test_it_writes_no_finalizer_no_annotation_and_no_status_twice(
    api_server: Any, crd: None, namespace: str, tmp_path: Path
) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(api_server.kubeconfig, "op", namespace, tmp_path) as op:
        eventually(
            "a status",
            lambda: get(api_server, namespace, "dsvc/tiny").get("status", {}).get("conditions"),
        )
        versions = set()
        for _ in range(8):
            body = get(api_server, namespace, "dsvc/tiny")
            versions.add(body["metadata"]["resourceVersion"])
            time.sleep(1)
        assert len(versions) == 1
        assert "finalizers" not in body["metadata"]
        assert set(body["metadata"].get("annotations", {})) <= {
            "kubectl.kubernetes.io/last-applied-configuration"
        }
        managers = {m["manager"] for m in body["metadata"]["managedFields"]}
        assert any("gesso-operator" in m for m in managers)
        assert not any("kopf" in m for m in managers)
        status, told = op.get("/healthz")
        assert (status, told) == (200, "alive\n")


def test_a_deleted_service_leaves_owned_objects_to_the_garbage_collector(
    api_server: Any, crd: None, namespace: str, tmp_path: Path
) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(api_server.kubeconfig, "op", namespace, tmp_path):
        eventually("a router", lambda: get(api_server, namespace, "deploy/tiny-router"))
    uid = get(api_server, namespace, "dsvc/tiny")["metadata"]["uid"]
    # No operator is there any more, and nothing hangs.
    api_server.kubectl("delete", "dsvc/tiny", "-n", namespace, "--timeout=5s")
    kinds = "configmaps,services,serviceaccounts,deployments,statefulsets,poddisruptionbudgets"
    items = get(api_server, namespace, kinds, "-l", "gesso.dev/service=tiny")["items"]
    assert len(items) >= 8
    assert {i["metadata"]["ownerReferences"][0]["uid"] for i in items} == {uid}


def test_the_scale_subresource_and_edits_reach_the_workers(
    api_server: Any, crd: None, namespace: str, tmp_path: Path
) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(api_server.kubeconfig, "op", namespace, tmp_path):

        def replicas() -> int | None:
            found: int | None = (
                get(api_server, namespace, "sts/tiny-worker").get("spec", {}).get("replicas")
            )
            return found

        eventually("two workers", lambda: replicas() == 2)
        api_server.kubectl("scale", "dsvc/tiny", "--replicas=4", "-n", namespace)
        eventually("four", lambda: replicas() == 4)
        api_server.kubectl("scale", "dsvc/tiny", "--replicas=1", "-n", namespace)
        # Those that go get no new requests for a while first.
        assert eventually("one", lambda: replicas() == 1, 20) > 2


@pytest.fixture
def loose(api_server: Any, crd: None, namespace: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Applies a spec that the API server takes although a rule of today forbids it."""
    told = api_server.kubectl("get", "crd", "diffusionservices.gesso.dev", "-o", "yaml").stdout
    before, changed = yaml.safe_load(told), yaml.safe_load(told)
    schema = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["workers"].pop("x-kubernetes-validations")

    def patch(crd: dict[str, Any]) -> None:
        api_server.kubectl(
            *("patch", "crd", "diffusionservices.gesso.dev", "--type=merge", "-p"),
            json.dumps({"spec": crd["spec"]}),
        )

    def apply(body: dict[str, Any]) -> None:
        text = json.dumps(body)

        def applied() -> bool:
            done = api_server.kubectl("apply", "-n", namespace, "-f", "-", text=text, check=False)
            return bool(done.returncode == 0)

        eventually("the loose rules", applied, 20)

    patch(changed)
    yield apply
    patch(before)


def accepted(api_server: Any, namespace: str) -> dict[str, Any]:
    """What the status says of the spec."""
    status = get(api_server, namespace, "dsvc/tiny").get("status", {})
    return next((c for c in status.get("conditions", []) if c["type"] == "Accepted"), {})


def contradictory() -> dict[str, Any]:
    """The sample with fewer workers at most than at least."""
    body: dict[str, Any] = yaml.safe_load(SAMPLE)
    body["spec"]["workers"] |= {"min": 3, "max": 2, "replicas": 2}
    return body


def test_a_spec_older_than_a_rule_of_today_is_refused_with_words(
    api_server: Any, loose: Callable[[dict[str, Any]], None], namespace: str, tmp_path: Path
) -> None:
    loose(contradictory())
    with operator(api_server.kubeconfig, "op", namespace, tmp_path):

        def refused() -> bool:
            told = accepted(api_server, namespace)
            return (
                told.get("reason") == "SpecInvalid"
                and "spec.workers.max: 2 is not allowed" in told["message"]
            )

        eventually("SpecInvalid", refused)
        api_server.kubectl(
            *("patch", "dsvc/tiny", "-n", namespace, "--type=merge", "-p"),
            '{"spec":{"workers":{"min":1}}}',
        )
        eventually("workers", lambda: get(api_server, namespace, "sts/tiny-worker"))


def test_a_refused_edit_is_told_once_and_leaves_what_serves_alone(
    api_server: Any, loose: Callable[[dict[str, Any]], None], namespace: str, tmp_path: Path
) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
    with operator(api_server.kubeconfig, "op", namespace, tmp_path):
        eventually("accepted", lambda: accepted(api_server, namespace).get("status") == "True")
        before = get(api_server, namespace, "sts/tiny-worker")["spec"]
        loose(contradictory())
        reason = "SpecInvalid"
        eventually("refused", lambda: accepted(api_server, namespace).get("reason") == reason)
        assert accepted(api_server, namespace)["observedGeneration"] == 2
        versions = set()
        for _ in range(6):
            time.sleep(1)
            versions.add(get(api_server, namespace, "dsvc/tiny")["metadata"]["resourceVersion"])
            assert accepted(api_server, namespace)["reason"] == reason
        assert len(versions) == 1
        assert get(api_server, namespace, "sts/tiny-worker")["spec"] == before
        api_server.kubectl("apply", "-n", namespace, "-f", "-", text=SAMPLE)
        eventually(
            "accepted again", lambda: accepted(api_server, namespace).get("status") == "True"
        )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--worker-image", "w"], "--router-image"),
        (
            ["--router-image", "r", "--worker-image", "w", "--lease-namespace", "n", "--http", "x"],
            "--http: 'x' is not allowed",
        ),
    ],
)
def test_bad_flags_end_it_with_one_line(flags: list[str], told: str) -> None:
    done = _run(flags, "/dev/null")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_cluster_it_says_so() -> None:
    flags = ["--router-image", "r", "--worker-image", "w", "--lease-namespace", "x"]
    done = _run([*flags, "--http", f"127.0.0.1:{free_port()}"], "/no/such/kubeconfig")
    assert done.returncode == 2
    assert "no cluster" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def _run(flags: list[str], kubeconfig: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gesso_operator.cluster", *flags],
        env={**os.environ, "KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
