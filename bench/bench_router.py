"""The router's own cost: 8 workers of fixed service time, a closed loop, beside a bare grpc.aio forwarder.

Overhead is a client's latency less what the worker says it took, so it holds both gRPC stacks, too: the
forwarder shows how much those are. CPU is the middle process's own, and hardly suffers from what else the
machine does: its inverse is what one core could carry.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"
HERE = Path(__file__).parent / "router_load"
WORKERS = 8
#: LeastOutstanding looks nothing up: what it takes less than QualityAware, eight look-ups and a choice cost.
THROUGH = {
    "forwarder": ("forwarder",),
    "no look-up": ("router", "LeastOutstanding"),
    "router": ("router", "QualityAware"),
}
#: Name, clients, requests a second (0: as many as there can be), service seconds, bytes of an image, slots.
CASES = (
    ("200 requests/s", 32, 200.0, 0.05, 100_000, 16),
    ("saturation", 128, 0.0, 0.05, 100_000, 16),
    ("100 clients, 2 MB images", 100, 0.0, 0.2, 2_000_000, 4),
)


class Part:
    """A process of router_load.parts."""

    def __init__(self, *arguments: str, core: int | None = None) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(HERE / "parts.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.popen.stdout is not None
        self.ports: dict[str, Any] = json.loads(self.popen.stdout.readline())
        self.process = psutil.Process(self.popen.pid)
        if core is not None and hasattr(self.process, "cpu_affinity"):
            self.process.cpu_affinity([core])

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    given = parser.parse_args()
    console = Console(stderr=True)
    table = Table(
        "case", "through", "images/s", "p50 ms", "p99 ms", "CPU ms", "one core/s", "RSS MB"
    )
    cases: dict[str, Any] = {}
    for name, clients, rate, service, image_bytes, slots in CASES:
        workers = Part("workers", *map(str, (WORKERS, service, image_bytes, slots)))
        found = {}
        for through, command in THROUGH.items():
            console.print(f"{name}: {through} ...")
            part = Part(*command, *workers.ports["addresses"], core=0)
            before, idle = part.cpu_seconds(), part.process.memory_info().rss
            row, peak = measured(part, clients, rate, given.seconds)
            served = row["requests"] * (given.seconds + 1.0) / given.seconds
            row["cpu_ms"] = (part.cpu_seconds() - before) / max(1.0, served) * 1000
            row["one_core_per_second"] = 1000 / row["cpu_ms"]
            row["idle_mb"], row["peak_mb"] = idle / 2**20, peak / 2**20
            part.close()
            found[through] = row
            table.add_row(
                name,
                through,
                *(f"{row[k]:.1f}" for k in ("per_second", "p50_ms", "p99_ms")),
                f"{row['cpu_ms']:.2f}",
                *(f"{row[k]:.0f}" for k in ("one_core_per_second", "peak_mb")),
            )
        workers.close()
        cases[name] = found
    console.print(table)
    report = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
        },
        "workers": WORKERS,
        "seconds": given.seconds,
        "cases": cases,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "router.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {OUT / 'router.json'}")


def measured(part: Part, clients: int, rate: float, seconds: float) -> tuple[Any, int]:
    """What the clients saw, and the most memory that the part held, bytes."""
    command = [sys.executable, str(HERE / "client.py")]
    arguments = [str(x) for x in (part.ports["grpc"], clients, rate, seconds)]
    peak = 0
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as load:
        while True:
            peak = max(peak, part.process.memory_info().rss)
            try:
                out, _ = load.communicate(timeout=0.05)
                return json.loads(out), peak
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    main()
