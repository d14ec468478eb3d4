"""One request to a service, by the images API or gRPC, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, urlsplit

import aiohttp
import grpc

from gesso.rpc.v1 import image_pb2, image_pb2_grpc
from gesso_simulator.bench.load import Asked

if TYPE_CHECKING:
    from gesso.rpc.v1.image_pb2_grpc import ImageServiceAsyncStub

_MESSAGE_BYTES = 64 * 1024 * 1024


class Ending(StrEnum):
    """How a request ended; each ends in exactly one of these."""

    IN_SLO = "served_in_slo"
    LATE = "late"
    SHED = "shed"  # refused at once
    DROPPED = "dropped"  # given up by the service after its deadline
    FAILED = "failed"  # an error of the service
    LOST = "lost"  # no answer, or a connection that broke


@dataclass(frozen=True)
class Result:
    """What became of a request. `latency_s` counts from when it was due to its last byte."""

    index: int
    at_s: float
    ending: Ending
    latency_s: float
    detail: str = ""
    skipped_steps: int | None = None
    similarity: float | None = None
    quality: float | None = None
    worker: str = ""

    @property
    def served(self) -> bool:
        """Whether an image came."""
        return self.ending in (Ending.IN_SLO, Ending.LATE)


@dataclass(frozen=True)
class Answer:
    """An image came, or why not; `ending` is LATE and IN_SLO for an image alike, time tells which."""

    ending: Ending
    detail: str = ""
    skipped_steps: int | None = None
    similarity: float | None = None
    quality: float | None = None
    worker: str = ""


@dataclass(frozen=True)
class Terms:
    """What every request asks: its SLO, a floor for its quality (None: the service's), when to give up."""

    slo_seconds: float
    min_quality: float | None = None
    grace_seconds: float = 30.0
    api_key: str = ""

    @property
    def timeout(self) -> float:
        """Seconds after which a request without an end counts as lost."""
        return self.slo_seconds + self.grace_seconds


Send = Callable[[Asked, float], Awaitable[Result]]


@contextlib.asynccontextmanager
async def sender(url: str, terms: Terms) -> AsyncIterator[Send]:
    """A function that sends requests to `http(s)://...` (the images API) or `grpc://HOST:PORT`.

    Raises ValueError on another URL.
    """
    parts = _parts(url)
    if parts.scheme == "grpc":
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
        ]
        async with grpc.aio.insecure_channel(parts.netloc, options=options) as channel:
            stub = image_pb2_grpc.ImageServiceStub(channel)
            yield _timed(lambda asked: _by_grpc(stub, asked, terms), terms)
        return
    # As many connections as there are requests under way: a bound would close the loop.
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {terms.api_key}"} if terms.api_key else {}
    timeout = aiohttp.ClientTimeout(total=terms.timeout)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout
    ) as session:
        target = url.rstrip("/") + "/v1/images/generations"
        yield _timed(lambda asked: _by_http(session, target, asked, terms), terms)


def _parts(url: str) -> SplitResult:
    bad = ValueError(
        f"--url: {url!r} is not allowed: http://HOST:PORT, https://... or grpc://HOST:PORT, PORT 1 to 65535"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise bad from None
    if not host or port == 0 or parts.scheme not in ("http", "https", "grpc"):
        raise bad
    # gRPC has no port of its own.
    if parts.scheme == "grpc" and port is None:
        raise bad
    return parts


def _timed(one: Callable[[Asked], Awaitable[Answer]], terms: Terms) -> Send:
    async def send(asked: Asked, start: float) -> Result:
        try:
            async with asyncio.timeout(terms.timeout):
                answer = await one(asked)
        except TimeoutError:
            answer = Answer(Ending.LOST, f"no answer within {terms.timeout:g} s")
        latency = time.monotonic() - start - asked.at_s
        ending = answer.ending
        if ending is Ending.IN_SLO and latency > terms.slo_seconds:
            ending = Ending.LATE
        return Result(
            asked.index,
            asked.at_s,
            ending,
            latency,
            answer.detail,
            answer.skipped_steps,
            answer.similarity,
            answer.quality,
            answer.worker,
        )

    return send


_BY_STATUS = {429: Ending.SHED, 504: Ending.DROPPED}


async def _by_http(
    session: aiohttp.ClientSession, target: str, asked: Asked, terms: Terms
) -> Answer:
    body: dict[str, object] = {
        "prompt": asked.prompt,
        "seed": asked.seed,
        "slo_ms": 1000 * terms.slo_seconds,
    }
    if terms.min_quality is not None:
        body["min_quality"] = terms.min_quality
    try:
        async with session.post(target, json=body) as answer:
            data = await answer.read()
            if answer.status != 200:
                ending = _BY_STATUS.get(answer.status, Ending.FAILED)
                return Answer(ending, f"{answer.status}: {data[:200].decode(errors='replace')}")
            told = answer.headers
            return Answer(
                Ending.IN_SLO,
                skipped_steps=_told(told.get("X-Gesso-Skipped-Steps"), int),
                similarity=_told(told.get("X-Gesso-Similarity"), float),
                quality=_told(told.get("X-Gesso-Predicted-Quality"), float),
                worker=told.get("X-Gesso-Worker", ""),
            )
    except (aiohttp.ClientError, OSError) as error:
        return Answer(Ending.LOST, f"{type(error).__name__}: {error}")


N = TypeVar("N", int, float)


def _told(text: str | None, kind: type[N]) -> N | None:
    try:
        return None if text is None else kind(text)
    except ValueError:  # another service's idea of the header
        return None


_BY_CODE = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Ending.SHED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Ending.DROPPED,
}


async def _by_grpc(stub: ImageServiceAsyncStub, asked: Asked, terms: Terms) -> Answer:
    request = image_pb2.GenerateRequest(
        prompt=asked.prompt,
        seed=asked.seed,
        slo_seconds=terms.slo_seconds,
        min_quality=terms.min_quality,
    )
    image: image_pb2.Image | None = None
    metadata = (("authorization", f"Bearer {terms.api_key}"),) if terms.api_key else None
    try:
        async for event in stub.Generate(request, timeout=terms.timeout, metadata=metadata):
            if event.WhichOneof("event") == "image":
                image = event.image
    except grpc.aio.AioRpcError as error:
        ending = _BY_CODE.get(error.code(), Ending.FAILED)
        if error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
            ending = Ending.LOST  # nobody answered
        return Answer(ending, f"{error.code().name}: {error.details()}")
    if image is None:
        return Answer(Ending.LOST, "the stream ended without an image")
    return Answer(
        Ending.IN_SLO,
        skipped_steps=image.skipped_steps,
        similarity=image.similarity,
        quality=image.predicted_quality,
        worker=image.worker,
    )
