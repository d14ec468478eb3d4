"""Where tests get a cluster from; see docs/testing.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.control_plane import ControlPlane, run_kubectl
from cluster.node import Cluster, InUseError
from cluster.tools import Tools, UnavailableError, found, made

FOLDER = Path("/tmp/gesso-test-cluster")


class Given:
    """A cluster that the user has: what tests need of it."""

    def __init__(self, kubeconfig: Path) -> None:
        """By its kubeconfig; kubectl is the user's."""
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            pytest.skip("GESSO_KUBECONFIG is set, but kubectl is not here")
        self.kubeconfig, self._kubectl = kubeconfig, Path(kubectl)

    def kubectl(
        self, *arguments: str, check: bool = True, text: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """As `ControlPlane.kubectl`."""
        return run_kubectl(self._kubectl, self.kubeconfig, arguments, check, text, timeout)


def tools_or_skip() -> Tools:
    """The cluster's programs; skips with the reason where they cannot be had."""
    tools = found()
    if tools is not None:
        return tools
    if os.geteuid() != 0:
        pytest.skip("no test cluster: only root can run one here; GESSO_KUBECONFIG names another")
    try:
        return made(lambda text: print(text, flush=True))
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An API server without a node, up in some 3 seconds; or the cluster that GESSO_KUBECONFIG names."""
    given = os.environ.get("GESSO_KUBECONFIG")
    if given:
        yield Given(Path(given))
        return
    plane = ControlPlane(tmp_path_factory.mktemp("plane"), tools_or_skip())
    plane.up()
    yield plane
    plane.down()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with a node, Services and DNS, up in some 8 seconds. Only root can have one."""
    tools = tools_or_skip()
    if os.geteuid() != 0:
        pytest.skip("no test cluster with a node: only root can run one here")
    made_here = Cluster(FOLDER, tools)
    try:
        made_here.up()
    except InUseError as error:
        pytest.skip(f"no test cluster with a node: {error}")
    except BaseException:
        made_here.down()
        raise
    yield made_here
    made_here.down()
    shutil.rmtree(FOLDER, ignore_errors=True)


@pytest.fixture
def namespace(api_server: Any) -> Iterator[str]:
    """A namespace of the test's own on `api_server`."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")
