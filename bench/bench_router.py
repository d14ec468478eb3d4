"""The router's own cost: 8 workers of fixed service time, a closed loop, beside a bare grpc.aio forwarder.

Overhead is a client's latency less what the worker says it took: all but embedding and generation, so it holds
both gRPC stacks, too, and the forwarder shows how much those are. The middle process has one core for itself;
clients and workers, in Go, have the others; two routers share all cores with these. CPU is the middle's own:
its inverse is what one core could carry. Clients ask for the image only, or follow it with events: queued,
started, and progress at every tenth step.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from router_load.processes import WORKERS, built, machine, measured, part, workers

OUT = Path(__file__).parent / "out"
TWO = "two routers"
#: LeastOutstanding looks nothing up: what it takes less than QualityAware, look-ups and a choice cost. A router
#: asks all shards while it does not know the cells of its embedding space.
THROUGH = {
    "forwarder": ("forwarder", "calls"),
    "no look-up": ("router", "LeastOutstanding"),
    "router": ("router", "QualityAware"),
    "router, all shards": ("router", "QualityAware", "--all-shards"),
    TWO: ("router", "QualityAware"),
}
#: What is left where nothing is decided: a server that asks nobody, and forwarders over one stream a worker.
FLOOR = {
    "server alone": ("forwarder", "alone"),
    "streams": ("forwarder", "streams"),
    "streams, look-ups": ("forwarder", "streams-and-look-ups"),
}
#: Name, clients, requests a second (0: as many as there can be), with events, service seconds, bytes of an
#: image, slots.
CASES = (
    ("200 requests/s", 32, 200.0, False, 0.05, 100_000, 16),
    ("200 requests/s, with events", 32, 200.0, True, 0.05, 100_000, 16),
    ("saturation", 128, 0.0, False, 0.05, 100_000, 16),
    ("saturation, with events", 128, 0.0, True, 0.05, 100_000, 16),
    ("100 clients, 2 MB images", 100, 0.0, False, 0.2, 2_000_000, 4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, help="the one in the middle by p99 is shown"
    )
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    parser.add_argument(
        "--floor", action="store_true", help="what gRPC in Python takes at least, beside the router"
    )
    given = parser.parse_args()
    console = Console(stderr=True)
    built()
    table = Table(
        "case", "through", "images/s", "p50 ms", "p99 ms", "CPU ms", "one core/s", "RSS MB"
    )
    cases: dict[str, Any] = {}
    for name, clients, rate, events, *service in CASES[: given.cases]:
        fake = workers(*service)
        # These tell of no events, and the server alone has images of one size.
        small = service[1] == CASES[0][5]
        shown = THROUGH | (FLOOR if given.floor and small and not events else {})
        found: dict[str, list[Any]] = {through: [] for through in shown}
        for turn in range(given.rounds):
            for through, command in shown.items():
                console.print(f"{name}, {turn + 1} of {given.rounds}: {through} ...")
                count = 2 if through == TWO else 1
                middle = [
                    part(*command, *fake.ports["addresses"], alone=count == 1) for _ in range(count)
                ]
                idle = sum(m.process.memory_info().rss for m in middle)
                row, peak = measured(middle, clients, rate, given.seconds, events)
                row["one_core_per_second"] = 1000 / row["cpu_ms"]
                row["idle_mb"], row["peak_mb"] = idle / 2**20, peak / 2**20
                for one in middle:
                    one.close()
                found[through].append(row)
        fake.close()
        for through, rows in found.items():
            row = sorted(rows, key=lambda r: r["p99_ms"])[len(rows) // 2]
            table.add_row(
                name,
                through,
                *(f"{row[k]:.1f}" for k in ("per_second", "p50_ms", "p99_ms")),
                f"{row['cpu_ms']:.2f}",
                *(f"{row[k]:.0f}" for k in ("one_core_per_second", "peak_mb")),
            )
        cases[name] = found
    console.print(table)
    report = {
        "machine": machine(),
        "workers": WORKERS,
        "seconds": given.seconds,
        "rounds": given.rounds,
        "cases": cases,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "router.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {OUT / 'router.json'}")


if __name__ == "__main__":
    main()
