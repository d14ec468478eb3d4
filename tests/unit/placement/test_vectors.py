"""Vectors on the wire: what a packed repeated float would be, byte for byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from gesso.vectors import packed, unpacked


def test_a_vector_comes_back_as_it_was() -> None:
    vector = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    assert packed(vector) == struct.pack("<7f", *vector)
    assert np.array_equal(unpacked(packed(vector)), vector)
    assert unpacked(packed([0.5, 2])).dtype == np.float32


def test_no_bytes_are_no_numbers() -> None:
    assert unpacked(b"").shape == (0,)


def test_half_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="6 bytes are not allowed: a multiple of 4"):
        unpacked(b"123456")
