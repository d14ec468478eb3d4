"""One latent as a file: safetensors, every byte of it covered by a checksum.

    8 bytes, JSON header | embedding F32 (d,) | check U8 (16,) | uses U64 (2,) | latents F16 or F32 (1, C, H, W)

`check` is BLAKE2b over all before it, the latents' own digest included, so that a file is known to be whole by
its first kilobytes and its size; the latents are checked when they are read. `uses` is the number of uses and
its check, apart from the rest since it is written in place.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32] | NDArray[np.float16]
Embedding = NDArray[np.float32]

_FORMAT: Final = "gesso-latent-1"
_DIGEST: Final = 16
_USES: Final = 16
_LONGEST_HEADER: Final = 16_384
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_NAMES: Final = {"float16": "F16", "float32": "F32"}


class CorruptError(Exception):
    """A file is not what was written."""


@dataclass(frozen=True)
class Stored:
    """What a file says of its latent; `isolation` is the service's, under which `tenant` was written.

    `written_ns` orders files by age (unix nanoseconds). `embedding` has shape (d,).
    """

    entry_id: str
    level: int
    tenant: str
    isolation: str
    fingerprint: str
    origin: str
    written_ns: int
    hits: int
    embedding: Embedding


@dataclass(frozen=True)
class _Layout:
    """Where things lie in a file."""

    stored: Stored
    uses_at: int
    latents_at: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    digest: str

    @property
    def size(self) -> int:
        return self.latents_at + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def encode(stored: Stored, latents: Latents) -> bytes:
    """The file's content."""
    name = _NAMES[latents.dtype.name]
    body = latents.astype(_DTYPES[name], copy=False).tobytes()
    embedding = stored.embedding.astype("<f4", copy=False).tobytes()
    check_at = len(embedding)
    uses_at = check_at + _DIGEST
    latents_at = uses_at + _USES
    header = {
        "__metadata__": {
            "format": _FORMAT,
            "entry_id": stored.entry_id,
            "level": str(stored.level),
            "tenant": stored.tenant,
            "isolation": stored.isolation,
            "fingerprint": stored.fingerprint,
            "origin": stored.origin,
            "written_ns": str(stored.written_ns),
            "latents_blake2b": _digest(body).hex(),
        },
        "embedding": _told("F32", stored.embedding.shape, 0, check_at),
        "check": _told("U8", (_DIGEST,), check_at, uses_at),
        "uses": _told("U64", (2,), uses_at, latents_at),
        "latents": _told(name, latents.shape, latents_at, latents_at + len(body)),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    before = len(text).to_bytes(8, "little") + text + embedding
    return before + _digest(before) + encode_uses(stored.hits) + body


def encode_uses(hits: int) -> bytes:
    """The number of uses with its check, 16 bytes."""
    number = hits.to_bytes(8, "little")
    return number + _digest(number)[:8]


def read_stored(file: int) -> Stored:
    """What a file says, without its latents. Raises CorruptError, OSError."""
    return _layout(file).stored


def uses_position(file: int) -> int:
    """Where in a file the uses lie. Raises CorruptError, OSError."""
    return _layout(file).uses_at


def read_latents(file: int) -> tuple[Stored, Latents]:
    """All that a file holds; the array is read-only. Raises CorruptError, OSError."""
    layout = _layout(file)
    body = _read(file, layout.latents_at, layout.size - layout.latents_at)
    if _digest(body).hex() != layout.digest:
        raise CorruptError("the latents do not fit their checksum")
    array: Latents = np.frombuffer(body, dtype=layout.dtype).reshape(layout.shape)
    return layout.stored, array


def _layout(file: int) -> _Layout:
    length = int.from_bytes(_read(file, 0, 8), "little")
    if not 2 <= length <= _LONGEST_HEADER:
        raise CorruptError("no header")
    text = _read(file, 8, length)
    try:
        header = json.loads(text)
        check_at = _end(header["embedding"], 0)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CorruptError("a header that cannot be read") from error
    # Nothing that the header says is believed before this.
    before = length + 8
    covered = _read(file, 0, before + check_at)
    if _read(file, before + check_at, _DIGEST) != _digest(covered):
        raise CorruptError("the header does not fit its checksum")
    try:
        layout = _parsed(header, before, covered[before:], file)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptError("a header of another format") from error
    if os.fstat(file).st_size != layout.size:
        raise CorruptError("the file is longer or shorter than it was written")
    return layout


def _parsed(header: Any, before: int, embedding: bytes, file: int) -> _Layout:
    said, latents = header["__metadata__"], header["latents"]
    if said["format"] != _FORMAT:
        raise CorruptError(f"format {said['format']!r}")
    uses_at = before + _end(header["check"], len(embedding))
    uses = _read(file, uses_at, _USES)
    hits = int.from_bytes(uses[:8], "little")
    if encode_uses(hits) != uses:
        raise CorruptError("the uses do not fit their checksum")
    stored = Stored(
        entry_id=said["entry_id"],
        level=int(said["level"]),
        tenant=said["tenant"],
        isolation=said["isolation"],
        fingerprint=said["fingerprint"],
        origin=said["origin"],
        written_ns=int(said["written_ns"]),
        hits=hits,
        embedding=np.frombuffer(embedding, dtype="<f4"),
    )
    return _Layout(
        stored,
        uses_at,
        uses_at + _USES,
        tuple(latents["shape"]),
        _DTYPES[latents["dtype"]],
        said["latents_blake2b"],
    )


def _end(tensor: Any, start: int) -> int:
    begin, end = tensor["data_offsets"]
    if begin != start or not start <= end <= start + (1 << 20):
        raise ValueError("data_offsets")
    return int(end)


def _told(dtype: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _read(file: int, at: int, size: int) -> bytes:
    data = os.pread(file, size, at)
    if len(data) != size:
        raise CorruptError("the file is cut off")
    return data


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
