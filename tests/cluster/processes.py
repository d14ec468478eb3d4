"""Processes of a test cluster: started, recorded, ended by their id and nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def established(server: Any, crd: str) -> None:
    """Waits until an API server serves a CRD: kubectl gives up where the CRD has no conditions yet."""
    words = ("wait", "--for=condition=Established", f"crd/{crd}", "--timeout=10s")
    assert wait_for(lambda: server.kubectl(*words, check=False).returncode == 0, 40.0), crd


class Processes:
    """A folder with the id and the log of each process; survives the one who started them."""

    def __init__(self, folder: Path) -> None:
        """Starts nothing yet."""
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Starts a process of its own session; its output goes to NAME.log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        (self.folder / f"{name}.pid").write_text(identity(process.pid))
        self._children[name] = process

    def running(self, name: str) -> bool:
        """Whether the process that was started under this name is there."""
        return self._pid(name) is not None

    def end(self, name: str, number: signal.Signals = signal.SIGTERM, wait_s: float = 5.0) -> None:
        """Signals a process, and kills it if it is not gone in time."""
        pid = self._pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                if not wait_for(lambda: self._gone(name), wait_s):
                    os.kill(pid, signal.SIGKILL)
                    wait_for(lambda: self._gone(name), 5.0)
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(5.0)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a log."""
        with suppress(OSError):
            text = (self.folder / f"{name}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def _gone(self, name: str) -> bool:
        child = self._children.get(name)
        if child is not None:
            child.poll()
        return self._pid(name) is None

    def _pid(self, name: str) -> int | None:
        with suppress(OSError):
            told = (self.folder / f"{name}.pid").read_text()
            return int(told.split()[0]) if alive(told) else None
        return None


def with_argument(argument: str) -> list[int]:
    """Processes that were started with exactly this argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def identity(pid: int) -> str:
    """A process, told apart from one that has its number later."""
    return f"{pid} {_started(pid)}"


def alive(told: str) -> bool:
    """Whether the process of an `identity` is there."""
    pid, _, started = told.partition(" ")
    return bool(started) and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty for one that is gone or only to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def wait_for(check: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Whether a check came true in time."""
    end = time.monotonic() + seconds
    while True:
        if check():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(pause)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
