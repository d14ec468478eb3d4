"""What breaks, under load: faults one after another, ten times too much, two routers side by side.

    python bench/bench_chaos.py [--parts chaos,overload,balance] [--faults kill-worker,...] [--short]

A local fleet of two routers and two CPU workers of the tiny SD-XL, disk tier on, under an open-loop Poisson
load of 0.8 of its capacity at K = 0, which is measured first. Clients do what a load balancer makes of them:
routers in turn; where one refuses or resets a connection, once more at another, with the same Idempotency-Key.
Latencies count from when a request was due. Under fifteen minutes, on a machine that does nothing else;
`--short` is for trying things out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import yaml
from chaos import balance, show
from chaos.client import Balanced
from chaos.disturbed import disturbed, seconds_of
from chaos.faults import FAULTS
from chaos.fleets import FakeWorkersFleet, write_service
from chaos.overload import deepest_over_full, overload, profiles
from rich.console import Console

from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.demo.fleet import Fleet
from gesso_simulator.demo.play import measure_capacity, measure_latency
from gesso_simulator.scenarios.build import slo_seconds as slo_of
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

ROOT = Path(__file__).parents[1]
OUT = ROOT / "bench" / "out"
PARTS = ("chaos", "overload", "balance")
LOAD, OVERLOAD = 0.8, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--faults", default=",".join(f.name for f in FAULTS))
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--calm", type=float, default=15.0, help="s before and after each fault")
    parser.add_argument("--overload-seconds", type=float, default=120.0)
    parser.add_argument("--warm-up", type=float, default=25.0, help="full load at first, s")
    parser.add_argument("--slo", default="5x", help="seconds, or a multiple of an image in full")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="half of everything, and less")
    parser.add_argument(
        "--fake-workers",
        action="store_true",
        help="workers that compute nothing: to try things out",
    )
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    for name, wanted, known in (
        ("--parts", given.parts, PARTS),
        ("--faults", given.faults, tuple(f.name for f in FAULTS)),
    ):
        if unknown := set(wanted.split(",")) - set(known):
            parser.error(f"{name}: {', '.join(unknown)} is not allowed: {', '.join(known)}")
    # So that fleets are taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    given.out.mkdir(parents=True, exist_ok=True)
    console, err = Console(), Console(stderr=True)
    file = given.out / "chaos.json"
    report: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    parts = given.parts.split(",")
    if {"chaos", "overload"} & set(parts):
        report |= asyncio.run(_live(given, parts, err))
    if "balance" in parts:
        err.print("two routers side by side, over fake workers")
        report["balance"] = asyncio.run(balance.balance(20.0 if given.short else 60.0, given.seed))
    file.write_text(json.dumps(_rounded(report), indent=1) + "\n")
    if "chaos" in report:
        show.disturbances(report["chaos"], console)
    if "overload" in report:
        show.overloads(report["overload"], console)
    if "balance" in report:
        show.balances(report["balance"], console)
    show.plot(given.out / "chaos.png", report)
    err.print(f"written: {file}")


async def _live(given: argparse.Namespace, parts: Sequence[str], err: Console) -> dict[str, Any]:
    """The parts that need a fleet, one after another on the same."""
    stretch, overload_s, calm = 1.0, given.overload_seconds, given.calm
    if given.short:
        stretch, overload_s, calm = 0.6, overload_s / 4, calm / 2
    faults = [f for f in FAULTS if f.name in given.faults.split(",")]
    work = given.out / "chaos"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    service, slo, latency = work / "service.yaml", 60.0, 0.0
    kind = FakeWorkersFleet if given.fake_workers else Fleet
    rng = np.random.default_rng(given.seed)
    stream = prompts(SessionMix(), rng)
    history = requests([0.0] * 4000, stream, rng)
    err.print("measuring latency and capacity at K = 0")
    # Everything in full, and nothing refused, whatever it costs.
    write_service(service, given.routers, slo, policy="ClipperHA")
    with kind(service, work / "state") as fleet:
        workers = len(fleet.workers())
        latency = await measure_latency(fleet.target, history, workers)
        capacity = await measure_capacity(fleet.target, history[2000:], 8 * workers, given.warm_up)
    slo = round(slo_of(given.slo, latency), 2)
    write_service(service, given.routers, slo)
    with kind(service, work / "state") as fleet:
        measured = await profiles([a for _, a in fleet.workers().values()])
        spec = yaml.safe_load(service.read_text())["spec"]
        deepest = max(spec["variants"][0]["skippedSteps"])
        best = capacity * float(np.mean([deepest_over_full(p, deepest) for p in measured]))
        found: dict[str, Any] = {
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "load_average_before": os.getloadavg()[0],
            },
            "routers": given.routers,
            "workers": workers,
            "latency_at_k0_seconds": latency,
            "slo_seconds": slo,
            "promised_attainment": spec["slo"]["attainment"],
            "capacity_at_k0_images_per_s": capacity,
            "capacity_at_deepest_images_per_s": best,
            "load": LOAD,
            "short": given.short,
            "fake_workers": given.fake_workers,
        }
        err.print(f"{capacity:.2f} images/s at K = 0, SLO {slo:g} s, load {LOAD * capacity:.2f}/s")

        def asked(seconds: float) -> list[PromptRequest]:
            rate = LOAD * capacity
            arrivals = poisson_arrivals(RateShape(((0.0, rate), (seconds, rate))), rng)
            return requests(arrivals, stream, rng)

        # Fills the cache as a service that is in use has it, and lets the live profiles settle.
        async with Balanced([g for _, g, _ in fleet.routers().values()], slo) as client:
            await open_loop(asked(given.warm_up), client.send)
        await asyncio.sleep(10.0)
        if "chaos" in parts:
            seconds = seconds_of(faults, calm, stretch)
            err.print(f"{len(faults)} faults, {seconds:.0f} s")
            found["chaos"] = await disturbed(
                fleet,
                asked(seconds),
                slo,
                found["promised_attainment"],
                faults,
                calm,
                stretch,
            )
            await _settled(fleet, workers)
        if "overload" in parts:
            after = 40.0 if not given.short else 25.0
            err.print(f"overload: {OVERLOAD * best:.0f} requests/s for {overload_s:.0f} s")
            found["overload"] = await overload(
                fleet,
                asked(calm + overload_s + after),
                slo,
                OVERLOAD * best,
                calm,
                overload_s,
                given.seed + 1,
            )
            found["overload"] |= {"begins_s": calm, "ends_s": calm + overload_s}
    return found


async def _settled(fleet: Fleet, workers: int) -> None:
    """Until every worker is ready again, a minute at most."""
    end = time.monotonic() + 60
    while fleet.status().workers.ready < workers and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(1.0)


def _rounded(value: Any) -> Any:
    """Without digits that nobody measured."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value


if __name__ == "__main__":
    main()
