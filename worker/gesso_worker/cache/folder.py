"""A folder of latent files: written atomically and durably, verified when read, one process at a time.

A file is written under a name that ends in `.tmp`, synced, renamed, and its folder synced: after a crash at any
point it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gesso_worker.cache.latent_file import (
    CorruptError,
    Latents,
    Stored,
    encode_uses,
    read_latents,
    read_stored,
    uses_position,
)

_LOCK: Final = "lock"
_SUFFIX: Final = ".safetensors"
_UNFINISHED: Final = ".tmp"
_PARTS: Final = 64
#: A file's place in its folder, the folder's own growth included.
_NAME_BYTES: Final = 512

Key = tuple[str, int]


class FolderError(Exception):
    """The folder cannot be used; says why."""


class LatentFolder:
    """Files by (entry, level). Calls for one key are the caller's to order; else thread-safe."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, takes its lock, and removes what a crash left unfinished. Raises FolderError."""
        self.path = path
        try:
            for part in range(_PARTS):
                (path / f"{part:02x}").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._block = max(512, os.statvfs(path).f_frsize)
        except OSError as error:
            raise FolderError(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for unfinished in path.glob(f"*/*{_UNFINISHED}"):
                unfinished.unlink()
        except BlockingIOError:
            os.close(self._lock)
            raise FolderError(f"{path}: another worker is using it") from None
        except OSError as error:
            os.close(self._lock)
            raise FolderError(f"{path}: {error.strerror}") from error

    @property
    def own_bytes(self) -> int:
        """What the folder takes without a file in it."""
        return (_PARTS + 2) * self._block

    def charge(self, size: int) -> int:
        """Bytes of the disk that a file of `size` bytes takes, its name included."""
        return -(-size // self._block) * self._block + _NAME_BYTES

    def scan(self) -> Iterator[tuple[Stored | None, int]]:
        """Every file's content but its latents, and the bytes that it takes; None for one that is not whole.

        Such a file is removed.
        """
        for path in self.path.glob(f"*/*{_SUFFIX}"):
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                stored = read_stored(file)
                if self._path((stored.entry_id, stored.level)) != path:
                    raise CorruptError("a file under another's name")
                size = self._taken(file)
            except (CorruptError, OSError):
                with contextlib.suppress(OSError):
                    path.unlink()
                yield None, 0
                continue
            finally:
                os.close(file)
            yield stored, size

    def write(self, files: Sequence[tuple[Key, bytes]]) -> list[int]:
        """Writes files, durably; the bytes that each takes. Raises OSError, and then there is none of them."""
        paths = [self._path(key) for key, _ in files]
        taken, begun = [], []
        try:
            for path, (_, data) in zip(paths, files, strict=True):
                partial = path.with_name(path.name + _UNFINISHED)
                begun.append(
                    os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                )
                view = memoryview(data)
                while view:
                    view = view[os.write(begun[-1], view) :]
            # All are under way to the disk before the first is waited for.
            for file in begun:
                os.fsync(file)
                taken.append(self._taken(file))
            for path in paths:
                path.with_name(path.name + _UNFINISHED).rename(path)
            for part in {path.parent for path in paths}:
                _sync(part)
        except OSError:
            for path in paths:
                for name in (path, path.with_name(path.name + _UNFINISHED)):
                    with contextlib.suppress(OSError):
                        name.unlink()
            raise
        finally:
            for file in begun:
                os.close(file)
        return taken

    def read(self, key: Key) -> Latents | None:
        """A file's latents, None without the file. Raises CorruptError if it is not whole, OSError."""
        try:
            file = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            stored, latents = read_latents(file)
        finally:
            os.close(file)
        if (stored.entry_id, stored.level) != key:
            raise CorruptError("a file under another's name")
        return latents

    def remove(self, key: Key) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._path(key).unlink()

    def set_hits(self, key: Key, hits: int) -> None:
        """Writes the number of uses in place: it outlives the process, a power cut mostly. Raises OSError."""
        try:
            file = os.open(self._path(key), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.pwrite(file, encode_uses(hits), uses_position(file))
        except CorruptError:
            return  # found out when it is read
        finally:
            os.close(file)

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._lock)

    def _path(self, key: Key) -> Path:
        entry_id, level = key
        part = hashlib.blake2b(entry_id.encode(), digest_size=1).digest()[0] % _PARTS
        return self.path / f"{part:02x}" / f"{entry_id}.{level}{_SUFFIX}"

    def _taken(self, file: int) -> int:
        found = os.fstat(file)
        return max(found.st_blocks * 512 + _NAME_BYTES, self.charge(found.st_size))


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
