"""The processes of bench_router and bench_tracing: what is measured, and what lies on both sides of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
PEER = HERE.parent / "out" / "peer"
WORKERS = 8
#: The first one is for what is measured.
CORES = sorted(os.sched_getaffinity(0))


class Part:
    """A process that tells its ports, and runs until its input ends."""

    def __init__(self, command: list[str], cores: Sequence[int] = ()) -> None:
        """`cores` are those that it may use, all if there are none."""
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.popen.stdout is not None
        self.ports: dict[str, Any] = json.loads(self.popen.stdout.readline())
        self.process = psutil.Process(self.popen.pid)
        if cores:
            self.process.cpu_affinity(cores)

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """Ends it."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def built() -> None:
    """Builds what is in Go: once, then as often as it has changed. Ends the program where there is no Go."""
    if shutil.which("go") is None:
        sys.exit("go: not found; the clients and the workers of this bench are written in Go")
    subprocess.run(
        ["go", "build", "-o", str(PEER), "."], cwd=HERE / "peer", check=True, timeout=600
    )


def workers(seconds: float, image_bytes: int, slots: int) -> Part:
    """Workers that take so many seconds for an image, with so many slots each."""
    from router_load.parts import placement

    numbers = (WORKERS, seconds, image_bytes, slots)
    return Part([str(PEER), "workers", *map(str, numbers), placement(WORKERS).version], CORES[1:])


def part(*arguments: str, alone: bool = False) -> Part:
    """A part of router_load.parts, alone on a core where that is to be."""
    command = [sys.executable, str(HERE / "parts.py"), *arguments]
    return Part(command, CORES[:1] if alone else ())


def measured(
    middle: Sequence[Part], clients: int, rate: float, seconds: float, events: bool = True
) -> tuple[Any, int]:
    """What the clients of routers saw, with their CPU per image, and the most memory that they held, bytes.

    `rate` is requests a second, 0: as many as there can be; without `events` they ask for the image only.
    """
    numbers = (clients, rate, seconds, int(events))
    addresses = ",".join(f"127.0.0.1:{m.ports['grpc']}" for m in middle)
    command = [str(PEER), "load", addresses, *map(str, numbers)]
    before, peak = sum(m.cpu_seconds() for m in middle), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
        if len(middle) == 1:
            psutil.Process(load.pid).cpu_affinity(CORES[1:])
        while True:
            peak = max(peak, sum(m.process.memory_info().rss for m in middle))
            try:
                out, _ = load.communicate(timeout=0.05)
                break
            except subprocess.TimeoutExpired:
                continue
    row = json.loads(out)
    served = row["requests"] * (seconds + 1.0) / seconds  # the first second is not told of
    used = sum(m.cpu_seconds() for m in middle) - before
    row["cpu_ms"] = used / max(1.0, served) * 1000
    return row, peak


def machine() -> dict[str, Any]:
    """Where this runs."""
    return {
        "processor": os.uname().machine,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
