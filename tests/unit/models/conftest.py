"""The shipped weights, loaded once."""

import pytest
import torch

from gesso_worker.models.tiny.sampling import Parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    torch.set_num_threads(1)
    return Parts.load()
