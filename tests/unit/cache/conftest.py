"""Puts the kits on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "fakes"))


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made) / "cache"
