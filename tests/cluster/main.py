"""A test cluster for a person: `python tests/cluster/main.py up|down`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.fixtures import FOLDER
from cluster.node import Cluster, InUseError
from cluster.tools import UnavailableError, made


def main(arguments: list[str]) -> int:
    """Brings the cluster up, and leaves it running; or ends it."""
    if arguments not in (["up"], ["down"]):
        print("usage: python tests/cluster/main.py up|down", file=sys.stderr)
        return 2
    try:
        cluster = Cluster(FOLDER, made())
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments == ["down"]:
        cluster.down()
        shutil.rmtree(FOLDER, ignore_errors=True)
        print("the test cluster is gone")
        return 0
    try:
        cluster.up(stays=True)
    except (InUseError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"export KUBECONFIG={cluster.kubeconfig} PATH={cluster.tools.kubectl.parent}:$PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
