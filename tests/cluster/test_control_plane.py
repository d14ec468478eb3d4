"""The test cluster itself: what the other tests take for granted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.images import python_pod, write_archive
from cluster.network import Network
from cluster.node import Cluster, InUseError
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


def test_what_a_killed_run_left_is_ended_by_the_next(api_server: Any, tmp_path: Path) -> None:
    if not hasattr(api_server, "tools"):
        pytest.skip("only for a cluster of our own")
    code = (
        "import os, signal, pathlib, sys; from cluster.control_plane import ControlPlane; "
        "from cluster.tools import found; ControlPlane(pathlib.Path(sys.argv[1]), found()).up(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed, after = tmp_path / "killed", ControlPlane(tmp_path / "after", api_server.tools)
    tests = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": tests}
    subprocess.run([sys.executable, "-c", code, str(killed)], env=env, check=False)
    assert _naming(killed)
    try:
        after.up()
        assert not _naming(killed)
        assert api_server.ready()
    finally:
        after.down()
    assert not _naming(tmp_path)


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


def test_an_archive_of_ones_own_runs_under_all_its_names(cluster: Cluster, tmp_path: Path) -> None:
    archive, busybox = tmp_path / "own.tar", cluster.tools.debian / "bin/busybox"
    names = ("localhost/own:1", "localhost/own:2")
    command = ["/bin/busybox", "echo", "made here"]
    write_archive(archive, names, {"/bin/busybox": busybox}, {}, command)
    cluster.load_image(archive)
    for tag, name in enumerate(names, 1):
        once = {"name": "c", "image": name, "imagePullPolicy": "Never"}
        assert _says(cluster, f"own-{tag}", {"containers": [once]}) == "made here\n"


def test_a_pod_runs_this_python_without_any_right(cluster: Cluster) -> None:
    spec = python_pod("unused", "c")["spec"]
    code = "import gesso_worker.server, os; print(os.getuid()); open('/etc/written', 'w')"
    container = spec["containers"][0] | {
        "image": "localhost/gesso-worker:test",
        "command": [sys.executable, "-c", code],
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    said = _says(cluster, "python", spec | {"containers": [container]}, "Failed", 90)
    assert "65532" in said.splitlines()
    assert "Read-only file system: '/etc/written'" in said


def test_there_is_one_on_a_machine_and_only_its_owner_ends_it(cluster: Cluster) -> None:
    with pytest.raises(InUseError, match=f"process \\({os.getpid()}\\)"):
        Cluster(cluster.folder, cluster.tools).up()
    main = str(Path(__file__).with_name("main.py"))
    down = subprocess.run(
        [sys.executable, main, "down"], check=False, capture_output=True, text=True
    )
    assert down.returncode == 1
    assert str(os.getpid()) in down.stderr
    assert cluster.ready()


@pytest.mark.timeout(240)
def test_down_leaves_the_machine_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    """Ends the session's cluster, and brings up another one, for the tests to come."""
    cluster.down()
    before = machine(cluster, tmp_path)
    assert "KUBE-" not in before["rules"]
    assert "10.255.0.1" not in before["addresses"]
    assert not before["processes"]
    try:
        cluster.up()
        cluster.kubectl("apply", "-f", "-", text=pod("left"))
        assert wait_for(lambda: phase(cluster, "left") == "Running", 40)
        now = machine(cluster, tmp_path)
        assert [k for k in before if now[k] == before[k]] == []
        # The worst that can be left: containers without the one who could end them.
        cluster.processes.end("containerd", signal.SIGKILL)
        cluster.kill_api_server()
        cluster.down()
        assert machine(cluster, tmp_path) == before
    finally:
        cluster.up()


def machine(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """What a cluster could have left on this machine."""
    env = {**os.environ, **Network(folder, cluster.tools.debian).filter_env()}
    rules = _output(str(folder / "filter" / "iptables-save"), env=env)
    return {
        # Each rule with a packet count and each call with a date.
        "rules": re.sub(r"\[\d+:\d+\]|^#.*$", "", rules, flags=re.MULTILINE),
        "addresses": _output("ip", "-br", "addr"),
        "namespaces": _output("ip", "netns", "ls"),
        "mounts": [x for x in _lines("/proc/mounts") if "gesso" in x or "cni-" in x],
        "groups": sorted(Path("/sys/fs/cgroup").glob("*/kubepods*")),
        "links": sorted(Path("/var/log/containers").glob("*.log")),
        "processes": _naming(cluster.folder),
    }


def _says(
    cluster: Cluster, name: str, spec: dict[str, Any], ends: str = "Succeeded", within: float = 40
) -> str:
    """What a pod prints that runs once."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    once = json.dumps(body | {"spec": spec | {"restartPolicy": "Never"}})
    cluster.kubectl("apply", "-f", "-", text=once)
    assert wait_for(lambda: phase(cluster, name) == ends, within), cluster.get("pod", name)
    said = cluster.kubectl("logs", name).stdout
    cluster.kubectl("delete", "pod", name)
    return said


def _naming(folder: Path) -> list[int]:
    """Processes that name a folder in their command line, but this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _output(*command: str, env: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
