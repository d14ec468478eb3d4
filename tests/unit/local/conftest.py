"""What the tests of the local fleet share: servers of the contract in this process, and stand-ins."""

import sys
from pathlib import Path

import pytest

from gesso.api import load_service

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "integration" / "stand_ins"))


@pytest.fixture
def service_file():
    return ROOT / "manifests" / "samples" / "tiny.yaml"


@pytest.fixture
def service(service_file):
    return load_service(service_file)
