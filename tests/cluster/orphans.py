"""Control planes whose tests were killed: the next one to start ends them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.processes import alive, identity


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time, in all processes."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Register:
    """Folders of running control planes, each with the process that it is for."""

    def __init__(self, folder: Path | None = None) -> None:
        """Makes the register; by default, the user's own on this machine."""
        self._folder = folder or Path(tempfile.gettempdir()) / f"gesso-test-planes-{os.geteuid()}"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, plane: Path) -> None:
        """Says that a control plane is for this process."""
        with locked(self._lock):
            self._entry(plane).write_text(f"{identity(os.getpid())}\n{plane}")

    def remove(self, plane: Path) -> None:
        """Says that it has ended."""
        self._entry(plane).unlink(missing_ok=True)

    def take_orphans(self) -> list[Path]:
        """Folders of those whose process is gone; each is given once, to whoever asks first."""
        found = []
        with locked(self._lock):
            for entry in self._folder.glob("*.plane"):
                with suppress(OSError):
                    owner, _, plane = entry.read_text().partition("\n")
                    if plane and not alive(owner):
                        entry.unlink()
                        found.append(Path(plane))
        return found

    @property
    def _lock(self) -> Path:
        return self._folder / "lock"

    def _entry(self, plane: Path) -> Path:
        return self._folder / f"{str(plane).strip('/').replace('/', '_')}.plane"
