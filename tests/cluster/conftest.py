"""The cluster's modules can be imported as `cluster`; its fixtures are there for this folder's tests."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.fixtures import api_server, cluster, namespace

#: Ten minutes of pods: `make test-faults`.
_LONG = ["test_faults.py", "test_other_models.py"]
collect_ignore = [] if os.environ.get("GESSO_FAULTS") else _LONG

__all__ = ["api_server", "cluster", "namespace"]
