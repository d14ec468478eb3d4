"""The cluster's modules can be imported as `cluster`; its fixtures are there for this folder's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.fixtures import api_server, cluster, namespace

__all__ = ["api_server", "cluster", "namespace"]
