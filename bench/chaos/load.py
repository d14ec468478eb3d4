"""Many more requests than can be served, open loop, over gRPC; a process of its own.

Reads one line of JSON (what `load` takes), prints one when every request was answered.
It does as little as it can for each: prompts are made before, events are not looked into.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np

from gesso.rpc.v1 import image_pb2
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

GRACE_S = 30.0
_METHOD = "/gesso.v1.ImageService/Generate"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


async def load(
    targets: Sequence[str],
    rate: float,
    seconds: float,
    slo_seconds: float,
    seed: int,
    begin_at: float,
) -> dict[str, Any]:
    """Answers as columns: when due, seconds from then on, the status's name (`OK`: an image).

    Second 0 is at `begin_at` of the machine's monotonic clock.
    """
    rng = np.random.default_rng(seed)
    arrivals = poisson_arrivals(RateShape(((0.0, rate), (seconds, rate))), rng)
    asked = requests(arrivals, prompts(SessionMix(), rng), rng)
    channels = [grpc.aio.insecure_channel(t, options=_OPTIONS) for t in targets]
    # Raw bytes both ways: an answer's kind is in its status.
    calls: list[Any] = [c.unary_stream(_METHOD) for c in channels]
    bodies = [
        image_pb2.GenerateRequest(
            prompt=a.prompt, seed=a.seed, slo_seconds=slo_seconds
        ).SerializeToString()
        for a in asked
    ]
    lags: list[float] = []

    async def send(one: PromptRequest, start: float) -> tuple[float, float, str]:
        call = calls[one.index % len(calls)](bodies[one.index], timeout=slo_seconds + GRACE_S)
        # A call ends only once everything in it was read.
        while True:
            try:
                if await call.read() is grpc.aio.EOF:
                    break
            except grpc.aio.AioRpcError:
                break
        code = (await call.code()).name
        return one.at_s, time.monotonic() - start - one.at_s, code

    gc.freeze()
    await asyncio.sleep(max(0.0, begin_at - time.monotonic()))
    began, used = time.monotonic(), _cpu()
    answers = await open_loop(asked, send, on_sent=lags.append)
    share = (_cpu() - used) / (time.monotonic() - began)
    for channel in channels:
        await channel.close()
    lags.sort()
    return {
        "at_s": [round(a[0], 4) for a in answers],
        "seconds": [round(a[1], 4) for a in answers],
        "status": [a[2] for a in answers],
        "cpu_share": share,
        "sent_late_p99_s": lags[int(0.99 * len(lags))] if lags else 0.0,
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(**json.loads(sys.stdin.readline())))))
