"""Plays a workload against a router in real time, open loop, and records how each request ended."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import grpc

from gesso.rpc.v1 import image_pb2, image_pb2_grpc
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.workloads.sessions import PromptRequest

if TYPE_CHECKING:
    from gesso.rpc.v1.image_pb2_grpc import ImageServiceAsyncStub

#: A request with no end this many seconds past its SLO counts as lost.
GRACE_SECONDS = 30.0


class Ending(StrEnum):
    """How a request ended; every offered request ends in exactly one of these."""

    IN_SLO = "served_in_slo"
    LATE = "late"
    DROPPED = "dropped"
    SHED = "shed"
    LOST = "lost"


@dataclass(frozen=True)
class Outcome:
    """What became of one request. Latency counts from its scheduled arrival to its last byte, in seconds."""

    request: PromptRequest
    ending: Ending
    latency_s: float
    detail: str = ""
    image: bytes = b""
    skipped_steps: int = 0
    similarity: float = 0.0
    predicted_quality: float = 0.0
    worker: str = ""
    attempts: int = 0

    @property
    def served(self) -> bool:
        """Whether an image came back, in time or late."""
        return self.ending in (Ending.IN_SLO, Ending.LATE)


@dataclass
class Board:
    """Outcomes so far, for whoever shows them while the load runs."""

    sent: int = 0
    outcomes: list[Outcome] = field(default_factory=list)


async def play(
    target: str,
    requests: Sequence[PromptRequest],
    slo_seconds: float,
    board: Board,
    on_start: Callable[[float], None] = lambda _: None,
) -> list[Outcome]:
    """Sends each request at its time, whatever became of the others; returns all outcomes in order.

    `target` is the router's `host:port`. `on_start` is called with the monotonic time of second 0.
    """
    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        stub = image_pb2_grpc.ImageServiceStub(channel)

        def send(request: PromptRequest, start: float) -> Awaitable[Outcome]:
            board.sent += 1
            return _one(stub, request, start, slo_seconds, board)

        return await open_loop(requests, send, on_start)


async def _one(
    stub: ImageServiceAsyncStub,
    request: PromptRequest,
    start: float,
    slo_seconds: float,
    board: Board,
) -> Outcome:
    image: image_pb2.Image | None = None
    detail, ending = "", Ending.LOST
    try:
        call = stub.Generate(
            image_pb2.GenerateRequest(prompt=request.prompt, seed=request.seed),
            timeout=slo_seconds + GRACE_SECONDS,
        )
        async for event in call:
            if event.WhichOneof("event") == "image":
                image = event.image
    except grpc.aio.AioRpcError as error:
        detail = f"{error.code().name}: {error.details()}"
        if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            ending = Ending.SHED
        elif error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            ending = Ending.DROPPED
    latency = time.monotonic() - start - request.at_s
    if ending is Ending.DROPPED and latency >= slo_seconds + GRACE_SECONDS:
        ending, detail = Ending.LOST, f"no answer within {latency:.0f} s"
    if image is None:
        outcome = Outcome(request, ending, latency, detail or "the stream ended without an image")
    else:
        outcome = Outcome(
            request,
            Ending.IN_SLO if latency <= slo_seconds else Ending.LATE,
            latency,
            image=image.data,
            skipped_steps=image.skipped_steps,
            similarity=image.similarity,
            predicted_quality=image.predicted_quality,
            worker=image.worker,
            attempts=image.attempts,
        )
    board.outcomes.append(outcome)
    return outcome


#: Images on each worker, one at a time, after one that warms up.
LATENCY_ROUNDS = 5
#: No image takes longer, unless something is broken.
MEASURING_SLO_SECONDS = 60.0


async def measure_latency(target: str, requests: Sequence[PromptRequest], workers: int) -> float:
    """Median seconds of an image at K = 0 with one on each worker; RuntimeError when requests fail."""
    latencies: list[float] = []
    queue = iter(requests)
    async with grpc.aio.insecure_channel(target) as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        try:
            for lap in range(1 + LATENCY_ROUNDS):
                took = await asyncio.gather(*(_in_full(stub, next(queue)) for _ in range(workers)))
                if lap:
                    latencies += took
        except grpc.aio.AioRpcError as error:
            raise RuntimeError(f"the latency could not be measured: {error.details()}") from None
    return statistics.median(latencies)


async def _in_full(stub: ImageServiceAsyncStub, request: PromptRequest) -> float:
    """Seconds of one image at K = 0. Raises grpc.aio.AioRpcError; RuntimeError when there is no image."""
    began = time.monotonic()
    call = stub.Generate(
        image_pb2.GenerateRequest(
            prompt=request.prompt,
            seed=request.seed,
            min_quality=1.0,
            slo_seconds=MEASURING_SLO_SECONDS,
        ),
        timeout=MEASURING_SLO_SECONDS + 10,
    )
    took: float | None = None
    # To its end: a call that is left early is cancelled.
    async for event in call:
        if event.WhichOneof("event") == "image":
            took = time.monotonic() - began
    if took is None:
        raise RuntimeError("the stream ended without an image")
    return took


async def measure_capacity(
    target: str, requests: Sequence[PromptRequest], concurrency: int, seconds: float
) -> float:
    """The fleet's images per second at K = 0, closed loop, through the same path that users take.

    `min_quality` 1 asks for full generation. Counts the images that end after a lead-in of a fifth of
    `seconds`.
    Raises RuntimeError when requests fail, since the figure would mean nothing.
    """
    ends: list[float] = []
    queue = iter(requests)
    async with grpc.aio.insecure_channel(target) as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        start = time.monotonic()

        async def user() -> None:
            while time.monotonic() - start < seconds:
                await _in_full(stub, next(queue))
                ends.append(time.monotonic() - start)

        try:
            await asyncio.gather(*(user() for _ in range(concurrency)))
        except grpc.aio.AioRpcError as error:
            raise RuntimeError(f"the capacity could not be measured: {error.details()}") from None
    lead_in = seconds / 5
    counted = sum(lead_in < end <= seconds for end in ends)
    if not counted:
        raise RuntimeError(f"the capacity could not be measured: no image within {seconds:.0f} s")
    return counted / (seconds - lead_in)
