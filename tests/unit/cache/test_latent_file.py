"""A file is read as it was written, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from cache_kit import latents, vector
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.latent_file import CorruptError, Stored, encode, encode_uses

STORED = Stored("worker-0-ab-7", 10, "t", "Tenant", "weights-1", "r1", 123, 4, vector(1))
ARRAY = latents(1)[10]
DATA = encode(STORED, ARRAY)


@pytest.fixture(scope="module")
def folder() -> Iterator[LatentFolder]:
    with TemporaryDirectory() as path:
        yield LatentFolder(Path(path))


def reading(folder: LatentFolder, data: bytes) -> None:
    """Reads by both ways in; raises CorruptError if either refuses."""
    path = folder._path((STORED.entry_id, STORED.level))
    path.write_bytes(data)
    found = folder.read((STORED.entry_id, STORED.level))
    ((stored, _),) = folder.scan()
    if stored is None:
        raise CorruptError("by the scan")
    assert found is not None
    assert np.array_equal(found, ARRAY)
    assert np.array_equal(stored.embedding, STORED.embedding)
    assert replace(stored, embedding=STORED.embedding) == STORED


def test_what_was_written_is_read(folder: LatentFolder) -> None:
    reading(folder, DATA)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_safetensors_reader_reads_it(dtype: type, tmp_path: Path) -> None:
    array = ARRAY.astype(dtype)
    (tmp_path / "a.safetensors").write_bytes(encode(STORED, array))
    found = load_file(tmp_path / "a.safetensors")
    assert np.array_equal(found["latents"], array)
    assert found["latents"].dtype == dtype
    assert np.array_equal(found["embedding"], STORED.embedding)
    assert found["uses"][0] == STORED.hits


@given(st.integers(0, 8 * len(DATA) - 1))
def test_any_flipped_bit_is_found(folder: LatentFolder, bit: int) -> None:
    data = bytearray(DATA)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptError):
        reading(folder, bytes(data))


@given(st.integers(0, len(DATA) - 1))
def test_any_cut_is_found(folder: LatentFolder, length: int) -> None:
    with pytest.raises(CorruptError):
        reading(folder, DATA[:length])


@given(st.binary(min_size=1, max_size=64), st.integers(0, len(DATA)))
def test_anything_put_in_is_found(folder: LatentFolder, more: bytes, at: int) -> None:
    with pytest.raises(CorruptError):
        reading(folder, DATA[:at] + more + DATA[at:])


@given(st.binary(max_size=400))
def test_anything_else_is_refused(folder: LatentFolder, data: bytes) -> None:
    with pytest.raises(CorruptError):
        reading(folder, data)


def test_a_file_under_anothers_name_is_refused(folder: LatentFolder) -> None:
    with pytest.raises(CorruptError):
        reading(folder, encode(replace(STORED, level=15), ARRAY))


@given(st.integers(0, 2**64 - 1))
def test_uses_are_written_in_place(folder: LatentFolder, hits: int) -> None:
    path = folder._path((STORED.entry_id, STORED.level))
    path.write_bytes(DATA)
    folder.set_hits((STORED.entry_id, STORED.level), hits)
    ((stored, _),) = folder.scan()
    assert stored is not None
    assert stored.hits == hits
    assert path.stat().st_size == len(DATA)
    assert path.read_bytes().replace(encode_uses(hits), encode_uses(4)) == DATA
