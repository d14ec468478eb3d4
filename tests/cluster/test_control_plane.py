"""The test cluster itself: what the other tests take for granted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster.node import Cluster
from cluster.processes import wait_for

POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: localhost/gesso-worker:test
      imagePullPolicy: Never
      command: %s
      resources: {limits: %s}
"""


def pod(name: str, command: str = "[sleep, '1000']", limits: str = "{}") -> str:
    return POD % (name, name, command, limits)


def phase(cluster: Cluster, name: str) -> str:
    found: str = cluster.get("pod", name, "-n", "default")["status"].get("phase", "")
    return found


def test_api_server_is_the_pinned_kubernetes(api_server: Any) -> None:
    assert '"v1.36' in api_server.kubectl("get", "--raw", "/version").stdout


def test_objects_outlive_the_api_server(api_server: Any, namespace: str) -> None:
    if not hasattr(api_server, "kill_api_server"):
        pytest.skip("a cluster that was given is not killed")
    api_server.kubectl("create", "configmap", "kept", "-n", namespace, "--from-literal=a=b")
    api_server.kill_api_server()
    assert not api_server.ready()
    api_server.start_api_server()
    assert api_server.get("configmap", "kept", "-n", namespace)["data"] == {"a": "b"}


def test_a_service_account_may_what_its_role_says(api_server: Any, namespace: str) -> None:
    if not hasattr(api_server, "kubeconfig_for"):
        pytest.skip("only for a cluster of our own")
    for command in (
        ("create", "serviceaccount", "reader"),
        ("create", "role", "reader", "--verb=get,list", "--resource=configmaps"),
        (
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            f"--serviceaccount={namespace}:reader",
        ),
    ):
        api_server.kubectl(*command, "-n", namespace)
    config = api_server.kubeconfig_for(namespace, "reader")
    assert config.stat().st_mode & 0o777 == 0o600
    kubectl = [str(api_server.tools.kubectl), "--kubeconfig", str(config), "-n", namespace]
    subprocess.run([*kubectl, "get", "configmaps"], check=True, capture_output=True)
    refused = subprocess.run(
        [*kubectl, "get", "secrets"], check=False, capture_output=True, text=True
    )
    assert "forbidden" in refused.stderr


def test_a_pod_runs_and_a_service_is_found_by_name(cluster: Cluster) -> None:
    served = "[sh, -c, 'echo hello > /tmp/index.html; exec httpd -f -p 8000 -h /tmp']"
    cluster.kubectl("apply", "-f", "-", text=pod("served", served))
    cluster.kubectl("expose", "pod", "served", "--port=80", "--target-port=8000")
    asks = "[sh, -c, 'until wget -qO- http://served.default.svc.cluster.local; do sleep 0.2; done']"
    once = pod("asks", asks).replace("spec:", "spec:\n  restartPolicy: Never")
    cluster.kubectl("apply", "-f", "-", text=once)
    assert wait_for(lambda: phase(cluster, "asks") == "Succeeded", 40)
    assert "hello" in cluster.kubectl("logs", "asks").stdout
    cluster.kubectl("delete", "pod/served", "pod/asks", "service/served")


def test_a_pod_without_a_gpu_to_take_waits(cluster: Cluster) -> None:
    cluster.set_gpus(2)
    for i in range(3):
        one = pod(f"gpu-{i}", limits="{nvidia.com/gpu: 1}")
        cluster.kubectl("apply", "-f", "-", text=one)
    names = [f"gpu-{i}" for i in range(3)]
    assert wait_for(lambda: [phase(cluster, n) for n in names].count("Running") == 2, 40)
    waiting = next(n for n in names if phase(cluster, n) == "Pending")
    told = cluster.get("pod", waiting)["status"]["conditions"][0]["message"]
    assert "Insufficient nvidia.com/gpu" in told
    cluster.kubectl("delete", "pod", *names)
    cluster.set_gpus(0)


@pytest.mark.timeout(180)
def test_down_leaves_nothing(cluster: Cluster) -> None:
    """Ends the session's cluster and brings it up again, for the tests to come."""
    folder = str(cluster.folder)
    cluster.down()
    assert folder not in Path("/proc/mounts").read_text()
    mine = [
        p
        for p in Path("/proc").glob("[0-9]*/cmdline")
        if folder.encode() in _read(p) and int(p.parent.name) != os.getpid()
    ]
    assert not mine
    shown = subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True, check=True).stdout
    assert "cni0" not in shown
    assert "10.255.0.1" not in shown
    env = {**os.environ, **_filter(cluster)}
    rules = subprocess.run(
        [env["GESSO_SAVE"]], env=env, capture_output=True, text=True, check=False
    )
    assert "KUBE-" not in rules.stdout
    cluster.up()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _filter(cluster: Cluster) -> dict[str, str]:
    root = cluster.tools.debian
    libraries = next(iter((root / "usr/lib").glob("*-linux-gnu")))
    save = Path("/tmp") / f"iptables-save-{os.getpid()}" / "iptables-save"
    save.parent.mkdir(exist_ok=True)
    save.unlink(missing_ok=True)
    save.symlink_to(root / "usr/sbin/xtables-nft-multi")
    return {
        "GESSO_SAVE": str(save),
        "LD_LIBRARY_PATH": str(libraries),
        "XTABLES_LIBDIR": str(libraries / "xtables"),
    }
