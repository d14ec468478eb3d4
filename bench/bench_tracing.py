"""What traces cost a router: off, one request in ten, all, and all of them to a collector that is gone.

As `bench_router.py` at saturation, 8 workers of fixed service time: the router's CPU per image, its throughput
and latency, each beside those with traces off, in turns.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from router_load.processes import built, machine, measured, part, workers

OUT = Path(__file__).parent / "out"
CLIENTS, SERVICE_S, IMAGE_BYTES, SLOTS = 128, 0.05, 100_000, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all of them")
    given = parser.parse_args()
    console = Console(stderr=True)
    built()
    fake = workers(SERVICE_S, IMAGE_BYTES, SLOTS)
    collector = part("collector")
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))
        cases: dict[str, tuple[str, ...]] = {
            "off": (),
            "1 in 10": ("--trace", collector.ports["endpoint"], "0.1"),
            "all": ("--trace", collector.ports["endpoint"], "1"),
            "all, no collector": ("--trace", f"http://127.0.0.1:{gone.getsockname()[1]}", "1"),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
        for turn in range(given.rounds):
            for name, trace in cases.items():
                console.print(f"round {turn + 1}: {name} ...")
                addresses = fake.ports["addresses"]
                router = part("router", "QualityAware", *trace, *addresses, alone=True)
                row, peak = measured([router], CLIENTS, 0.0, given.seconds)
                row["peak_mb"] = peak / 2**20
                router.close()
                found[name].append(row)
    fake.close()
    collector.close()
    means = {
        name: {k: statistics.median(r[k] for r in rows) for k in rows[0]}
        for name, rows in found.items()
    }
    table = Table("traces", "images/s", "p50 ms", "p99 ms", "CPU ms", "of off", "RSS MB")
    for name, row in means.items():
        row["cpu_of_off"] = row["cpu_ms"] / means["off"]["cpu_ms"]
        table.add_row(
            name,
            *(f"{row[k]:.1f}" for k in ("per_second", "p50_ms", "p99_ms")),
            *(f"{row[k]:.2f}" for k in ("cpu_ms", "cpu_of_off")),
            f"{row['peak_mb']:.0f}",
        )
    console.print(table)
    report: dict[str, Any] = {
        "machine": machine(),
        "seconds": given.seconds,
        "rounds": given.rounds,
        "medians": means,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "tracing.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {OUT / 'tracing.json'}")


if __name__ == "__main__":
    main()
