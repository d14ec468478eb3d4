"""Two models in one fleet, for real: workers go over to the turbo above what levels carry, and come back.

    python bench/bench_family.py [--seconds 150] [--load 3] [--slo 4] [--service FILE]

Brings the sample up as `gesso up` does and plays user sessions: a sixth of the time at a quarter of what the
workers' measured profiles make at K = 0, a third at `--load` times that, the rest at a quarter again. Printed
and written to bench/out/family.json: each plan with its reason, each change of model with what it cost (its
worker's own figures), and what was served. Fails unless a worker went over and all came back, every plan had a
reason, no request was lost, a change to a model in memory took less than a tenth of a load, and no worker went
over more than once (flapping). Load is relative to this machine; where it is so busy that an image in full is
hardly done by the sample's deadline, name a longer one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from gesso.api import load_service
from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_simulator.demo.fleet import Fleet, Watcher, write_service
from gesso_simulator.demo.play import Board, Outcome, play
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import SessionMix, prompts, requests

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "manifests" / "samples" / "tiny-family.yaml"
OUT = ROOT / "bench" / "out" / "family.json"
#: After the load: until the planner has seen often enough that it has gone.
MOST_SETTLE_SECONDS = 180.0
LIGHT = 0.25
_SWITCHED = re.compile(
    r"switched .*before=(\S+) after=(\S+) kept=(\S+) drain_s=(\S+) load_s=(\S+) warmup_s=(\S+)"
)


@dataclass(frozen=True)
class Change:
    """A worker's change of model, in seconds as it logged them."""

    worker: str
    before: str
    after: str
    kept: bool
    drain_s: float
    load_s: float
    warmup_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.drain_s + self.load_s + self.warmup_s


def shape_of(seconds: float, load: float, capacity: float) -> RateShape:
    """Light, heavy, light; with a second between them, since times ascend."""
    first, second = seconds / 6, seconds / 2
    points = (
        (0.0, LIGHT),
        (first, LIGHT),
        (first + 1, load),
        (second, load),
        (second + 1, LIGHT),
        (seconds, LIGHT),
    )
    return RateShape(tuple((t, rate * capacity) for t, rate in points))


def changes_of(state_dir: Path) -> list[Change]:
    """What the workers' logs tell."""
    found = []
    for log in sorted((state_dir / "logs").glob("worker-*.log")):
        for match in _SWITCHED.finditer(log.read_text(errors="replace")):
            before, after, kept, *times = match.groups()
            drain, load, warm = map(float, times)
            found.append(Change(log.stem, before, after, kept.lower() == "true", drain, load, warm))
    return found


async def profiled(fleet: Fleet) -> float:
    """Images/s at K = 0 of all workers together, by what they tell of themselves."""
    total = 0.0
    for _, address in fleet.workers().values():
        async with grpc.aio.insecure_channel(address) as channel:
            stats = await worker_pb2_grpc.WorkerStub(channel).Stats(
                worker_pb2.StatsRequest(), timeout=10
            )
        told = stats.profile
        profile = Profile(
            told.device,
            told.steps,
            told.encode_seconds,
            told.decode_seconds,
            tuple(told.step_seconds),
        )
        total += max(profile.throughput(0, b + 1) for b in range(len(profile.step_seconds)))
    return total


async def run(
    source: Path, seconds: float, load: float, slo: float | None, console: Console
) -> dict[str, Any]:
    service = load_service(source)
    slo_s = slo or service.spec.slo.latency_seconds
    workers = service.spec.workers.least
    rng = np.random.default_rng(3)
    stream = prompts(SessionMix(), rng)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file = Path(folder) / "service.yaml"
        write_service(source, file, service.spec.scheduling.policy, slo_s)
        fleet = stack.enter_context(Fleet(file, Path(folder) / "state"))
        # Measured by requests in full it would be the load that brings the other model in.
        capacity = await profiled(fleet)
        console.print(f"{capacity:.2f} images/s at K = 0 by the profiles of {workers} workers")
        shape = shape_of(seconds, load, capacity)
        asked = requests(poisson_arrivals(shape, rng), stream, rng)
        watcher, watching = Watcher(fleet), None

        def begin(start: float) -> None:
            nonlocal watching
            watching = asyncio.get_running_loop().create_task(watcher.run(start))

        outcomes = await play(fleet.target, asked, slo_s, Board(), begin)
        until = time.monotonic() + MOST_SETTLE_SECONDS
        while _others(fleet) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        assert watching is not None
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return {
            "capacity_at_k0": round(capacity, 3),
            "load": load,
            "slo_seconds": slo_s,
            "seconds": seconds,
            "workers": workers,
            "plans": plans_of(watcher),
            "changes": [asdict(c) | {"seconds": c.seconds} for c in changes_of(fleet.state_dir)],
            "left_on_another_model": _others(fleet),
            "restarts": watcher.restarts,
            "offered": len(outcomes),
            "endings": dict(Counter(o.ending.value for o in outcomes)),
            "phases": phases_of(outcomes, seconds),
        }


def _others(fleet: Fleet) -> int:
    """Workers that another model than the own is planned for."""
    parts = (part.split(":") for part in fleet.status().mix.split(",") if part)
    return sum(int(n) for name, n in parts if not name.isdigit())


def plans_of(watcher: Watcher) -> list[dict[str, Any]]:
    """The mixes in the order in which they came, with their reasons."""
    found: list[dict[str, Any]] = []
    for sample in watcher.samples:
        if not found or found[-1]["mix"] != sample.mix:
            found.append(
                {
                    "at_s": round(sample.at_s, 1),
                    "mix": sample.mix,
                    "reason": sample.reason,
                    "message": sample.message,
                }
            )
    return found


def phases_of(outcomes: list[Outcome], seconds: float) -> dict[str, Any]:
    """What was served in each phase: rate, share in time, mean predicted quality."""
    edges = {"before": (0.0, seconds / 6), "load": (seconds / 6, seconds / 2)}
    edges["after"] = (seconds / 2, seconds)
    told = {}
    for name, (low, high) in edges.items():
        part = [o for o in outcomes if low <= o.request.at_s < high]
        served = [o for o in part if o.served]
        told[name] = {
            "offered_per_s": round(len(part) / (high - low), 2),
            "in_time": round(sum(o.ending.value == "served_in_slo" for o in part) / len(part), 4)
            if part
            else None,
            "predicted_quality": round(float(np.mean([o.predicted_quality for o in served])), 4)
            if served
            else None,
        }
    return told


def faults_of(found: dict[str, Any]) -> list[str]:
    """What it did not show."""
    changes = found["changes"]
    over = Counter(c["worker"] for c in changes if c["before"] == "own")
    faults = []
    if not over:
        faults.append("no worker went over to another model")
    if found["left_on_another_model"] or sum(over.values()) * 2 != len(changes):
        faults.append("not every worker that went over came back")
    if any(times > 1 for times in over.values()):
        faults.append(f"flapping: workers went over more than once: {dict(over)}")
    if any(not p["reason"] or not p["message"] for p in found["plans"]):
        faults.append("a plan without a reason")
    if found["endings"].get("lost"):
        faults.append(f"{found['endings']['lost']} requests were lost")
    loads = [c["seconds"] for c in changes if not c["kept"]]
    kept = [c["seconds"] for c in changes if c["kept"]]
    if not kept or (loads and max(kept) > 0.1 * min(loads)):
        faults.append(f"changes within memory took {kept} s, loads {loads} s")
    return faults


def show(found: dict[str, Any], console: Console) -> None:
    table = Table("at", "mix", "reason", "message")
    for plan in found["plans"]:
        table.add_row(f"{plan['at_s']:g} s", plan["mix"], plan["reason"], plan["message"])
    console.print(table)
    table = Table("worker", "change", "in memory", "drain s", "load s", "warm-up s")
    for c in found["changes"]:
        times = (f"{c[key]:.4f}" for key in ("drain_s", "load_s", "warmup_s"))
        table.add_row(c["worker"], f"{c['before']} to {c['after']}", str(c["kept"]), *times)
    console.print(table)
    console.print(found["endings"], found["phases"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--load", type=float, default=3.0)
    parser.add_argument("--slo", type=float)
    parser.add_argument("--service", type=Path, default=SAMPLE)
    args = parser.parse_args()
    console = Console()
    found = asyncio.run(run(args.service, args.seconds, args.load, args.slo, console))
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {platform.python_version()}"
    found["faults"] = faults_of(found)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    show(found, console)
    for fault in found["faults"]:
        console.print(fault, style="red")
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
