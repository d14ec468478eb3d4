"""`manifests/install.yaml`: what the chart installs with its defaults, for `kubectl apply -f`."""

from __future__ import annotations

import subprocess
from pathlib import Path

INSTALL = Path(__file__).resolve().parents[1] / "manifests" / "install.yaml"
NAMESPACE = "gesso-system"

_HEAD = f"""\
# Made by `make chart` from charts/gesso; not to be edited.
# kubectl apply --server-side -f manifests/install.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/name: gesso
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
"""
#: Lines that mean something to Helm alone.
_HELM_ONLY = ("app.kubernetes.io/managed-by: Helm", "helm.sh/chart:", "# Source: ")


def install_manifest(helm: Path, chart: Path) -> str:
    """Its text. Raises ValueError with what helm says when it refuses the chart."""
    done = subprocess.run(
        [
            *(helm, "template", "gesso", chart, "--namespace", NAMESPACE, "--no-hooks"),
            # A helm that was built without its release's flags takes itself for one of Kubernetes 1.20.
            *("--kube-version", "1.36.0"),
            # The annotation to keep the CRD means something to Helm alone.
            *("--set", "crds.keep=false"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise ValueError(f"{helm} template: {done.stderr.strip()}")
    lines = [x for x in done.stdout.splitlines() if not x.strip().startswith(_HELM_ONLY)]
    documents = [d.strip("\n") for d in "\n".join(lines).split("\n---\n")]
    first = documents[0].removeprefix("---\n")
    return "---\n".join(d + "\n" for d in (_HEAD.rstrip("\n"), first, *documents[1:]))
