"""What holds for all tests."""

import os

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair.
settings.register_profile("gesso", deadline=None)
settings.load_profile("gesso")
# Matrices are small here: threads of a linear algebra library would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="Write the golden reports anew (tests/unit/reports/golden) instead of comparing with them.",
    )
