"""Codebooks as safetensors: `centroids` F16 (n, d), `cell_of` I32 (n,), `weights` F32 (cells,)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gesso.placement import Codebook

#: Beside an embedding model's weights.
FILE_NAME: Final = "placement.safetensors"
#: 65,536 centroids of 2,048 numbers would be more.
MOST_BYTES: Final = 128 << 20


class CodebookError(ValueError):
    """A codebook that cannot be; says why."""


def to_bytes(codebook: Codebook) -> bytes:
    """As `from_bytes` reads it. Centroids that are not float16 exactly come back rounded: round first."""
    return save(
        {
            "centroids": codebook.centroids.astype(np.float16),
            "cell_of": codebook.cell_of.astype(np.int32),
            "weights": codebook.weights.astype(np.float32),
        }
    )


def from_bytes(data: bytes) -> Codebook:
    """Raises CodebookError."""
    if len(data) > MOST_BYTES:
        raise CodebookError(f"codebook: {len(data)} bytes are not allowed: at most {MOST_BYTES}")
    try:
        parts = load(data)
        return Codebook(
            parts["centroids"].astype(np.float32),
            parts["cell_of"].astype(np.int32),
            parts["weights"].astype(np.float64),
        )
    except KeyError as error:
        raise CodebookError(f"codebook: no {error.args[0]}") from None
    except (SafetensorError, ValueError, TypeError) as error:
        raise CodebookError(f"codebook: {error}") from error


def read_codebook(path: Path) -> Codebook:
    """A codebook from a file. Raises CodebookError, OSError."""
    try:
        return from_bytes(path.read_bytes())
    except CodebookError as error:
        raise CodebookError(f"{path}: {error}") from None
