"""The state directory of a local fleet: which files it holds, and `state.json`, by which others find the
fleet.

Who holds the lock on `lock` is the supervisor; a process id alone may have passed to another program.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError

from gesso.api.base import ApiModel
from gesso.api.status import ServiceStatus

DEFAULT_ROOT = Path(".gesso")
_FILES = ("service.yaml", "state.json", "status.json", "plan.json", "lock")

#: The router that has the service's own ports.
FIRST_ROUTER = "router"

Phase = Literal["Starting", "Ready", "Stopping", "Failed"]


class Child(ApiModel):
    """A process of the fleet."""

    name: str = Field(description="`router`, `router-1` and so on, or the worker's name.")
    pid: int = Field(description="Process id, also the id of its process group; 0: not running.")
    address: str = Field(description="host:port of its gRPC server.")
    http: str = Field(default="", description="host:port of a router's HTTP server.")
    serving: bool = Field(default=False, description="Whether it was healthy when last looked at.")


class LocalState(ApiModel):
    """What `state.json` holds."""

    name: str = Field(description="Name of the service.")
    phase: Phase = Field(description="Where the fleet is between start and end.")
    message: str = Field(default="", description="What it waits for, or why it failed.")
    pid: int = Field(description="Process id of the supervisor.")
    started_at: datetime = Field(description="When the supervisor was started.")
    grpc: str = Field(description="host:port of the first router's gRPC server.")
    http: str = Field(description="host:port of the first router's HTTP server.")
    children: tuple[Child, ...] = Field(default=(), description="Routers and workers.")

    @property
    def routers(self) -> tuple[Child, ...]:
        """The routers, the first one first."""
        return tuple(c for c in self.children if c.http)

    @property
    def workers(self) -> tuple[Child, ...]:
        """The workers."""
        return tuple(c for c in self.children if not c.http)


class StateDir:
    """Paths in one state directory, and reading and writing what is there."""

    def __init__(self, path: str | Path) -> None:
        """`path` need not exist yet."""
        self.path = Path(path)

    @classmethod
    def of(cls, name: str, root: Path = DEFAULT_ROOT) -> Self:
        """The default place of a service's state: `.gesso/NAME`."""
        return cls(root / name)

    @property
    def service_file(self) -> Path:
        """A copy of what is served."""
        return self.path / "service.yaml"

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.path / "logs"

    def cache(self, worker: str) -> Path:
        """The folder of one worker's latents."""
        return self.path / "cache" / worker

    def router(self, name: str) -> Path:
        """The folder of one router's plan: the first one's is the state directory itself."""
        return self.path if name == FIRST_ROUTER else self.path / "routers" / name

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Makes the directory and its folder of logs. Raises OSError."""
        self.logs.mkdir(parents=True, exist_ok=True)

    def try_lock(self) -> int | None:
        """Takes the lock for the life of the returned file descriptor; None when a supervisor holds it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def alive(self) -> bool:
        """Whether a supervisor runs here."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def write_state(self, state: LocalState) -> None:
        """Replaces state.json atomically."""
        _replace(self.path / "state.json", state.model_dump_json(indent=1))

    def write_status(self, status: ServiceStatus) -> None:
        """Replaces status.json atomically."""
        _replace(self.path / "status.json", status.model_dump_json(indent=1))

    def read_state(self) -> LocalState | None:
        """state.json; None where there is none, or none that can be read."""
        text = _read(self.path / "state.json")
        with suppress(ValidationError):
            return LocalState.model_validate_json(text) if text else None
        return None

    def read_status(self) -> ServiceStatus | None:
        """status.json; None where there is none, or none that can be read."""
        text = _read(self.path / "status.json")
        with suppress(ValidationError):
            return ServiceStatus.model_validate_json(text) if text else None
        return None

    def remove(self) -> None:
        """Removes what Gesso wrote here but caches, which make the next start warm; empty folders too."""
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for log in self.logs.glob("*.log*"):
            log.unlink(missing_ok=True)
        routers = self.path / "routers"
        own = sorted(routers.glob("*"))
        for folder in own:
            (folder / "plan.json").unlink(missing_ok=True)
        # A folder that holds something else stays; the parent goes only if it is ours.
        ours = [self.path.parent] if self.path.parent.name == DEFAULT_ROOT.name else []
        for folder in (self.logs, *own, routers, self.path, *ours):
            with suppress(OSError):
                folder.rmdir()


def local_services(root: Path = DEFAULT_ROOT) -> Iterator[StateDir]:
    """State directories under `root` that hold a state.json, by name."""
    if root.is_dir():
        for file in sorted(root.glob("*/state.json")):
            yield StateDir(file.parent)


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)
