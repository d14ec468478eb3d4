"""The chart as it is installed in tests: by a helm of either major version."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import ControlPlane
from cluster.installed import CHART
from cluster.processes import wait_for
from cluster.tools import Tools

CRD = "customresourcedefinition/diffusionservices.gesso.dev"
CRD_TEMPLATE = Path("templates") / "crd.yaml"


def earlier_chart(folder: Path) -> Path:
    """A chart as one of an earlier version was: another version, and a CRD without a short name."""
    chart = folder / "gesso"
    shutil.copytree(CHART, chart)
    for path, now, then in (
        (chart / "Chart.yaml", "version: 0.1.0\n", "version: 0.0.9\n"),
        (chart / CRD_TEMPLATE, "    shortNames:\n    - dsvc\n", ""),
    ):
        text = path.read_text()
        if now not in text:
            raise AssertionError(f"{path}: {now!r} is not in it")
        path.write_text(text.replace(now, then, 1))
    return chart


@dataclass(frozen=True)
class Release:
    """One release by one helm."""

    helm: Path
    plane: ControlPlane
    namespace: str
    name: str = "gesso"

    def run(
        self, *words: str | Path, values: dict[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs `helm WORDS` in the release's namespace. Raises AssertionError with what it said."""
        done = subprocess.run(
            [str(self.helm), *map(str, words), "--namespace", self.namespace]
            + (["--values", "-"] if values is not None else []),
            input=None if values is None else yaml.safe_dump(values),
            env={
                "KUBECONFIG": str(self.plane.kubeconfig),
                "HOME": str(self.plane.folder),
                "PATH": "/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=240,
        )
        if check and done.returncode:
            raise AssertionError(f"helm {words[0]}: {done.stdout}{done.stderr}")
        return done

    def revision(self) -> tuple[int, str]:
        """Number and state of the last revision."""
        history = json.loads(self.run("history", self.name, "--output", "json").stdout)
        return history[-1]["revision"], history[-1]["status"]


def helm_of(tools: Tools, major: int) -> Path:
    """The helm of a major version."""
    return tools.go(f"helm{major}")


def ownable(plane: ControlPlane, namespace: str, account: str) -> None:
    """Waits until an account may make objects that a DiffusionService owns, by tries that make none.

    The API server's check of owners lists kinds every 30 s, and refuses until then whoever is no
    administrator. Raises AssertionError.
    """
    owner = {
        "apiVersion": "gesso.dev/v1alpha1",
        "kind": "DiffusionService",
        "name": "any",
        "uid": "00000000-0000-4000-8000-000000000000",
        "blockOwnerDeletion": True,
    }
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "namespace": namespace, "ownerReferences": [owner]},
    }
    words = (
        "create",
        "--dry-run=server",
        f"--as=system:serviceaccount:{namespace}:{account}",
        "-f",
        "-",
    )
    told = json.dumps(body)
    if not wait_for(
        lambda: not plane.kubectl(*words, text=told, check=False).returncode, 35.0, 0.5
    ):
        raise AssertionError(plane.kubectl(*words, text=told, check=False).stderr)


def served(plane: ControlPlane) -> None:
    """Waits until the API server serves DiffusionServices. Raises AssertionError."""
    plane.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    # It takes a moment to serve a kind that is established.
    ask = ("get", "diffusionservices.gesso.dev", "-A")
    if not wait_for(lambda: plane.kubectl(*ask, check=False).returncode == 0, 20.0, 0.2):
        raise AssertionError("the API server does not serve DiffusionServices")
