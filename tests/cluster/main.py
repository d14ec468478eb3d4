"""A test cluster for a person: `python tests/cluster/main.py up|down|status`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.fixtures import FOLDER
from cluster.node import STAYS, Cluster, InUseError
from cluster.tools import UnavailableError, found, made


def main(arguments: list[str]) -> int:
    """Brings the cluster up, and leaves it running; or ends it; or says what there is."""
    if arguments not in (["up"], ["down"], ["status"]):
        print("usage: python tests/cluster/main.py up|down|status", file=sys.stderr)
        return 2
    if arguments == ["status"]:
        return _status()
    try:
        cluster = Cluster(FOLDER, made())
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments == ["down"]:
        if cluster.owner() not in ("", STAYS):
            print(f"process {cluster.owner()} runs tests on it: it ends with them", file=sys.stderr)
            return 1
        cluster.down()
        shutil.rmtree(FOLDER, ignore_errors=True)
        print("the test cluster is gone")
        return 0
    try:
        cluster.up(stays=True)
    except (InUseError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(_export(cluster))
    return 0


def _status() -> int:
    tools = found()
    if tools is None:
        print("no programs: `make cluster-tools` makes them")
        return 1
    cluster = Cluster(FOLDER, tools)
    owner = cluster.owner()
    if not owner:
        print("no test cluster; `make cluster-up` starts one")
        return 1
    print("up" if owner == STAYS else f"up, for the tests of process {owner}")
    print(cluster.kubectl("get", "nodes,pods", "-A", check=False).stdout, end="")
    print(_export(cluster))
    return 0


def _export(cluster: Cluster) -> str:
    return f"export KUBECONFIG={cluster.kubeconfig} PATH={cluster.tools.kubectl.parent}:$PATH"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
