"""`kubectl gesso` as kubectl runs it: found on the PATH, with the user's kubeconfig, on a real API server."""

import json
import os
import subprocess
import sys

import pytest
from cluster.chart_release import served
from cluster.control_plane import ControlPlane
from cluster.fixtures import tools_or_skip
from cluster.installed import ROOT

TINY = ROOT / "manifests" / "samples" / "tiny.yaml"
CRD = ROOT / "crds" / "gesso.dev_diffusionservices.yaml"
STATUS = {
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "AllReady",
            "message": "all parts are ready",
            "lastTransitionTime": "2026-01-01T12:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "mix": "0:2",
    "workers": {"desired": 2, "ready": 2},
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    made = ControlPlane(tmp_path_factory.mktemp("plane"), tools_or_skip())
    made.up()
    made.kubectl("apply", "-f", str(CRD))
    served(made)
    made.kubectl("apply", "-f", str(TINY))
    patch = json.dumps({"status": STATUS})
    words = ("patch", "dsvc", "tiny", "--subresource=status", "--type=merge", "-p", patch)
    made.kubectl(*words)
    yield made
    made.down()


@pytest.fixture
def gesso(plane, tmp_path):
    plugin = tmp_path / "kubectl-gesso"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m gesso.cli.kubectl_plugin "$@"\n')
    plugin.chmod(0o755)
    path = f"{tmp_path}:{plane.tools.kubectl.parent}:{os.environ['PATH']}"

    def run(*words):
        return subprocess.run(
            [str(plane.tools.kubectl), "gesso", *words],
            env={**os.environ, "PATH": path, "KUBECONFIG": str(plane.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run


def test_status(gesso):
    done = gesso("status", "tiny")
    assert done.stdout.startswith("tiny: Ready | 2/2 workers | mix 0:2 | SLO no requests"), (
        done.stderr
    )
    everywhere = gesso("status", "--all-namespaces")
    assert everywhere.stdout.startswith("default/tiny: Ready")
    assert (done.returncode, everywhere.returncode) == (0, 0)


def test_plan(gesso):
    done = gesso("plan", "tiny", "--rate", "0.1")
    assert done.returncode == 0, done.stderr
    assert "(2 workers)" in done.stdout


def test_a_service_that_is_not_there(gesso):
    done = gesso("status", "tinier")
    assert done.returncode == 1
    assert 'diffusionservices.gesso.dev "tinier" not found' in done.stderr


def test_a_kubeconfig_without_rights(plane, gesso):
    plane.kubectl("create", "serviceaccount", "nobody")
    done = gesso("status", "--kubeconfig", str(plane.kubeconfig_for("default", "nobody")))
    assert done.returncode == 1
    assert "forbidden" in done.stderr.lower()
