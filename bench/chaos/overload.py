"""Ten times what the fleet could serve at best, for two minutes: answers, memory, recovery."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import psutil

from chaos.client import Balanced
from chaos.figures import Answer, attainment, back_after, due, percentile, told, trend
from chaos.watch import Watch
from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.demo.fleet import Fleet
from gesso_simulator.workloads.sessions import PromptRequest

LOAD = Path(__file__).parent / "load.py"
#: A refusal that takes longer is not at once.
AT_ONCE_S = 0.05
#: Attainment that counts as recovered.
RECOVERED = 0.99


async def profiles(addresses: Sequence[str]) -> list[Profile]:
    """What the workers say of themselves."""
    found = []
    for address in addresses:
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = worker_pb2_grpc.WorkerStub(channel)
            told_ = (await stub.Stats(worker_pb2.StatsRequest(), timeout=5)).profile
            times = (told_.encode_seconds, told_.decode_seconds, tuple(told_.step_seconds))
            found.append(Profile(told_.device, told_.steps, *times))
    return found


def deepest_over_full(profile: Profile, deepest: int) -> float:
    """How many times as many images a worker makes at the deepest level as at K = 0."""
    return profile.work_seconds(0) / profile.work_seconds(deepest)


async def overload(
    fleet: Fleet,
    asked: Sequence[PromptRequest],
    slo_seconds: float,
    rate: float,
    calm_s: float,
    seconds: float,
    seed: int,
) -> dict[str, Any]:
    """`asked` is the usual load, before, during and after; the overload comes on top, `rate` a second."""
    targets = [grpc_ for _, grpc_, _ in fleet.routers().values()]
    watch = Watch(fleet, time.monotonic())
    watching = asyncio.create_task(watch.run())
    started: list[float] = []
    extra: list[dict[str, Any]] = []

    async def burst() -> None:
        while not started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(LOAD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 2**20,
            # The scheduler's share is by session: it gets one of its own, as each process of the fleet has.
            start_new_session=True,
        )
        wanted = {
            "targets": targets,
            "rate": rate,
            "seconds": seconds,
            "slo_seconds": slo_seconds,
            "seed": seed,
            "begin_at": started[0] + calm_s,
        }
        out, _ = await process.communicate(json.dumps(wanted).encode() + b"\n")
        extra.append(json.loads(out))

    async with Balanced(targets, slo_seconds) as client:
        answers, _ = await asyncio.gather(open_loop(asked, client.send, started.append), burst())
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return summary(answers, extra[0], watch, slo_seconds, rate, calm_s, seconds)


def summary(
    answers: Sequence[Answer],
    extra: dict[str, Any],
    watch: Watch,
    slo_seconds: float,
    rate: float,
    calm_s: float,
    seconds: float,
) -> dict[str, Any]:
    """The figures; `extra` is what the load generator has measured."""
    over_s = calm_s + seconds
    last = answers[-1].at_s if answers else 0.0
    took = list(zip(extra["seconds"], extra["status"], strict=True))
    images = [s for s, code in took if code == "OK"]
    refused = [s for s, code in took if code == "RESOURCE_EXHAUSTED"]
    in_slo = sum(s <= slo_seconds for s in images)
    at_once = sum(s <= AT_ONCE_S for s in refused)
    others = [(s, code) for s, code in took if code not in ("OK", "RESOURCE_EXHAUSTED")]
    return {
        "requests_per_s": rate,
        "requests": len(took),
        "images": len(images),
        "images_in_slo": in_slo,
        "images_in_slo_per_s": in_slo / seconds,
        "refused": len(refused),
        "refused_at_once": at_once,
        "otherwise": {code: sum(c == code for _, c in others) for code in {c for _, c in others}},
        "kept_promise_share": (in_slo + at_once) / max(1, len(took)),
        "in_slo_share_of_images": in_slo / max(1, len(images)),
        "refusal_p50_s": percentile(refused, 0.5),
        "refusal_p99_s": percentile(refused, 0.99),
        "refusal_share_at_once": at_once / max(1, len(refused)),
        "image_p99_s": percentile(images, 0.99),
        "generator_cpu_share_of_a_core": extra["cpu_share"],
        "generator_sent_late_p99_s": extra["sent_late_p99_s"],
        "cores": psutil.cpu_count(),
        "usual_load_before": told(due(answers, 0.0, calm_s)),
        "usual_load_during": told(due(answers, calm_s, over_s)),
        "usual_load_after": told(due(answers, over_s, last)),
        "recovered_after_s": back_after(answers, over_s, last, RECOVERED),
        "attainment_after_10_s": attainment(due(answers, over_s + 10.0, last)),
        "memory_mib": {
            name: trend([(at, v) for at, v in samples if calm_s <= at < over_s])
            for name, samples in watch.memory.items()
        },
        "memory_over_time": dict(watch.memory),
        "counters": watch.counted(calm_s, over_s),
        "said": watch.said(calm_s, last),
    }
