"""Gesso installed in the test cluster by Helm, its programs run from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from cluster.images import python_pod
from cluster.node import Cluster
from cluster.processes import established

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "gesso"
SYSTEM = "gesso-system"
_OPERATOR = "gesso-operator"

#: What the Prometheus operator would bring, as far as it takes to own one.
_MONITORS = "podmonitors.monitoring.coreos.com"
_POD_MONITORS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, plural: podmonitors, singular: podmonitor}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""


def chart_values() -> dict[str, Any]:
    """Values of the chart under which every container runs this checkout's Python."""
    pod = python_pod("gesso_operator.cluster", "operator")["spec"]
    container = pod["containers"][0]
    return {
        "images": {"registry": "localhost", **_images(), "pullPolicy": "Never"},
        "operator": {
            "command": container["command"],
            "extraEnv": container["env"],
            "extraVolumes": pod["volumes"],
            "extraVolumeMounts": container["volumeMounts"],
        },
        "podDefaults": {
            "router": python_pod("gesso_router.server", "router"),
            "worker": python_pod("gesso_worker.server", "worker"),
        },
    }


def _images() -> dict[str, str]:
    return {part: f"localhost/gesso-{part}:test" for part in ("operator", "router", "worker")}


class Installed:
    """A release in a cluster."""

    def __init__(self, cluster: Cluster, helm: str = "helm3") -> None:
        """Installs nothing yet; `helm` is helm3 or helm4."""
        self.cluster, self._helm = cluster, cluster.tools.go(helm)

    def helm(self, *arguments: str) -> str:
        """Runs Helm. Raises RuntimeError with what it said."""
        env = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig), "HELM_CACHE_HOME": "/tmp"}
        done = subprocess.run(
            [str(self._helm), *arguments], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def prepare(self) -> None:
        """Has the cluster know monitors, before an operator asks whether it does."""
        self.cluster.kubectl("apply", "-f", "-", text=_POD_MONITORS)
        established(self.cluster, _MONITORS)

    def install(self, folder: Path, **more: Any) -> str:
        """`helm install`, and waits until the operator is ready."""
        values = folder / "values.yaml"
        values.write_text(yaml.safe_dump({**chart_values(), **more}))
        return self.helm(
            *("install", "gesso", str(CHART), "-n", SYSTEM, "--create-namespace"),
            *("-f", str(values), "--wait", "--timeout", "120s"),
        )

    def uninstall(self) -> str:
        """`helm uninstall`."""
        return self.helm("uninstall", "gesso", "-n", SYSTEM, "--wait")

    def service(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """A DiffusionService as it is."""
        return self.cluster.get("dsvc", name, "-n", namespace)

    def condition(self, name: str, kind: str, namespace: str = "default") -> dict[str, Any]:
        """A condition; empty where it is not there yet."""
        status = self.service(name, namespace).get("status") or {}
        found: dict[str, Any] = next(
            (c for c in status.get("conditions", []) if c["type"] == kind), {}
        )
        return found

    def address(self, name: str, namespace: str = "default") -> str:
        """The cluster's address of a service's routers."""
        found: str = self.cluster.get("service", name, "-n", namespace)["spec"]["clusterIP"]
        return found

    def pods(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Pods by label."""
        found: list[dict[str, Any]] = self.cluster.get("pods", "-n", namespace, "-l", selector)[
            "items"
        ]
        return found

    def operator_log(self, lines: int = 200) -> str:
        """What the operator said last."""
        return self.cluster.kubectl(
            "logs", f"deploy/{_OPERATOR}", "-n", SYSTEM, f"--tail={lines}", check=False
        ).stdout

    def shown(self) -> str:
        """What there is, what pods go through, and the operator's last words: for who reads of a failure."""
        kubectl = self.cluster.kubectl
        found = kubectl("get", "dsvc,pods", "-A", "-o", "wide", check=False).stdout
        # Not all events have a lastTimestamp, the scheduler's among them.
        events = kubectl(
            "get", "events", "--sort-by=.metadata.creationTimestamp", check=False
        ).stdout.splitlines()
        node = kubectl("describe", "nodes", check=False).stdout
        logs = [self.cluster.processes.tail(name) for name in ("scheduler", "manager")]
        return "\n".join([found, *events[-25:], node, *logs, self.operator_log(30)])

    def clear(self) -> None:
        """Leaves the cluster without Gesso, whatever there is of it."""
        kubectl = self.cluster.kubectl
        # With all that they own: once their kind is gone too, the garbage collector may take a minute.
        words = ("--cascade=foreground", "--timeout=90s")
        kubectl("delete", "dsvc", "--all", "-A", *words, check=False, timeout=100.0)
        with suppress(RuntimeError):
            self.uninstall()
        crds = ("diffusionservices.gesso.dev", _MONITORS)
        kubectl("delete", "crd", *crds, "--ignore-not-found", "--timeout=60s", check=False)

    def wait(self, what: str, check: Callable[[], Any], seconds: float = 60.0) -> float:
        """Seconds until a check holds; fails with the operator's last words where it does not."""
        began = time.monotonic()
        while True:
            try:
                if check():
                    return time.monotonic() - began
            except RuntimeError:
                pass
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not within {seconds:g} s: {what}\n{self.shown()}")
            time.sleep(0.1)

    def mixed(self, name: str) -> dict[int, int]:
        """Workers by skipped steps, as the status tells."""
        mix = (self.service(name).get("status") or {}).get("mix", "")
        return {int(k): int(n) for k, n in (part.split(":") for part in mix.split(",") if part)}


def merge_patch(**spec: Any) -> tuple[str, ...]:
    """Arguments of `kubectl patch` that change a spec."""
    return ("--type=merge", "-p", json.dumps({"spec": spec}))
