"""Makes the kit, the chart's own modules and the router's kit importable; finds helm."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests" / "unit" / "router")]
# Behind all else: the chart's folder has the package's name.
sys.path.append(str(ROOT / "charts"))

from find_helm import built_helms, find_helm  # noqa: E402

HOW = "put one on the PATH, name it by HELM=/path/of/helm, or run make cluster-tools"


@pytest.fixture(scope="session")
def helm() -> Path:
    found = find_helm()
    if found is None:
        pytest.skip(f"there is no helm: {HOW}")
    return found


@pytest.fixture(scope="session", params=[3, 4], ids=["helm-3", "helm-4"])
def each_helm(request) -> Path:
    """Both major versions, one after the other."""
    found = built_helms().get(request.param)
    if found is None:
        pytest.skip(f"there is no Helm {request.param}: make cluster-tools makes both")
    return found
