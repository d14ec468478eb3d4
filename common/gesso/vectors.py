"""Vectors as they go over the wire: float32, little-endian, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIRE = np.dtype("<f4")


def packed(vector: NDArray[np.floating[Any]] | Sequence[float]) -> bytes:
    """A vector (d,) as bytes."""
    return np.asarray(vector, dtype=_WIRE).tobytes()


def unpacked(data: bytes) -> NDArray[np.float32]:
    """The vector (d,) that lies in bytes, read-only. Raises ValueError on part of a number."""
    if len(data) % _WIRE.itemsize:
        raise ValueError(f"{len(data)} bytes are not allowed: a multiple of {_WIRE.itemsize}")
    return np.frombuffer(data, dtype=_WIRE).astype(np.float32, copy=False)
