"""Do routers that know nothing of each other use workers as one router would? Real routers, fake workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chaos.client import Balanced
from chaos.fake_worker import PROFILE, BatchWorker
from chaos.figures import Answer, Ending, attainment, mean, percentile
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

PARTS = Path(__file__).parents[1] / "router_load" / "parts.py"
WORKERS, LOAD, SLO_S = 8, 0.85, 8.0
WARM_S = 5.0


@contextlib.asynccontextmanager
async def router(addresses: Sequence[str]) -> AsyncIterator[str]:
    """A router's process for these workers; gives its gRPC host:port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PARTS),
        "router",
        "QualityAware",
        *addresses,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        yield f"127.0.0.1:{ports['grpc']}"
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def case(
    routers: int, asked: Sequence[PromptRequest], workers: int = WORKERS, slo_s: float = SLO_S
) -> dict[str, Any]:
    """One load through so many routers."""
    async with contextlib.AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(BatchWorker(f"worker-{i}")) for i in range(workers)
        ]
        addresses = [w.address for w in fleet]
        targets = [await stack.enter_async_context(router(addresses)) for _ in range(routers)]
        apart: list[float] = []

        async def sample() -> None:
            await asyncio.sleep(WARM_S)
            while True:
                queues = [w.outstanding for w in fleet]
                apart.append(float(np.std(queues)))
                await asyncio.sleep(0.1)

        sampling = asyncio.create_task(sample())
        async with Balanced(targets, slo_s) as client:
            answers: list[Answer] = await open_loop(asked, client.send)
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    warm = [a for a in answers if a.at_s >= WARM_S]
    served = [a for a in warm if a.ending in (Ending.IN_SLO, Ending.LATE)]
    by_worker = Counter(a.worker for a in served)
    shares = [by_worker[w.name] / max(1, len(served)) for w in fleet]
    latencies = [a.latency_s for a in served]
    return {
        "requests": len(warm),
        "attainment": attainment(warm),
        "refused": sum(a.ending is Ending.REFUSED for a in warm),
        "latency_p50_s": percentile(latencies, 0.5),
        "latency_p99_s": percentile(latencies, 0.99),
        "least_share": min(shares),
        "most_share": max(shares),
        "queue_apart": mean(apart),
        "by_router": dict(Counter(str(a.routers[-1]) for a in warm)),
    }


async def balance(seconds: float, seed: int) -> dict[str, Any]:
    """One and two routers, the same load of `LOAD` of the capacity."""
    rate = LOAD * WORKERS * PROFILE.throughput(0)
    rng = np.random.default_rng(seed)
    arrivals = poisson_arrivals(RateShape(((0.0, rate), (seconds, rate))), rng)
    asked = requests(arrivals, prompts(SessionMix(), rng), rng)
    return {
        "workers": WORKERS,
        "load": LOAD,
        "requests_per_s": rate,
        "slo_seconds": SLO_S,
        "cases": {str(n): await case(n, asked) for n in (1, 2)},
    }
