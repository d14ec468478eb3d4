"""What is broken, and how it is mended where it does not mend itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gesso.api.local_state import StateDir
from gesso_simulator.demo.fleet import Fleet

Act = Callable[[Fleet], str]


@dataclass(frozen=True)
class Fault:
    """`begin` breaks something, `end` mends it `lasts_s` later; then it is watched for `after_s`."""

    name: str
    title: str
    begin: Act
    lasts_s: float = 0.0
    after_s: float = 25.0
    end: Act | None = None


def _worker(number: int, what: signal.Signals) -> Act:
    def act(fleet: Fleet) -> str:
        name, (pid, _) = sorted(fleet.workers().items())[number]
        os.kill(pid, what)
        return f"{what.name} to {name}"

    return act


def _router(number: int, what: signal.Signals) -> Act:
    def act(fleet: Fleet) -> str:
        name, (pid, *_) = list(fleet.routers().items())[number]
        os.kill(pid, what)
        return f"{what.name} to {name}"

    return act


def _supervisor(what: signal.Signals) -> Act:
    def act(fleet: Fleet) -> str:
        os.kill(fleet.supervisor(), what)
        return f"{what.name} to the supervisor, which observes, plans and minds processes"

    return act


def corrupt(folder: Path) -> int:
    """Changes a byte in the middle of every latent file below a folder; gives how many there were."""
    count = 0
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                # The last quarter is latents; what lies before is looked at when a file is opened, too.
                file.seek(size - size // 4)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 0xFF]))
        except (OSError, IndexError):
            continue  # evicted meanwhile
        count += 1
    return count


def _corrupt(fleet: Fleet) -> str:
    name = min(fleet.workers())
    count = corrupt(StateDir(fleet.state_dir).cache(name))
    return f"a byte changed in each of {count} files of {name}'s cache"


FAULTS = (
    Fault("kill-worker", "kill -9 a worker", _worker(0, signal.SIGKILL), after_s=40.0),
    Fault(
        "stop-worker",
        "a worker hangs for 20 s",
        _worker(0, signal.SIGSTOP),
        lasts_s=20.0,
        end=_worker(0, signal.SIGCONT),
    ),
    Fault("restart-router", "restart a router", _router(0, signal.SIGTERM)),
    Fault("kill-router", "kill -9 a router", _router(1, signal.SIGKILL)),
    Fault(
        "cut-planner",
        "no planner for 60 s",
        _supervisor(signal.SIGSTOP),
        lasts_s=60.0,
        after_s=15.0,
        end=_supervisor(signal.SIGCONT),
    ),
    Fault("corrupt-cache", "corrupt cache files", _corrupt),
)
