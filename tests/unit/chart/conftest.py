"""Makes the kit, the chart's own modules and the router's kit importable; finds helm."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path[:0] = [
    str(Path(__file__).parent),
    str(ROOT / "charts"),
    str(ROOT / "tests" / "unit" / "router"),
]

from find_helm import find_helm  # noqa: E402


@pytest.fixture(scope="session")
def helm() -> Path:
    found = find_helm()
    if found is None:
        pytest.skip("there is no helm: put one on the PATH, or name it by HELM=/path/of/helm")
    return found
