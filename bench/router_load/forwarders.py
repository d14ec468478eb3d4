"""What stands where the router stands, and decides nothing: what gRPC in Python takes at least."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import grpc.aio

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, worker_pb2, worker_pb2_grpc
from gesso_router.lookups import Lookups, Metadata
from gesso_router.messages import varint

#: As those of workers.go.
STEPS = 50
DIMENSIONS = 512
SIZE_LIMIT = (("grpc.max_receive_message_length", 64 * 2**20), ("grpc.so_reuseport", 0))
#: Of Alone, as the first cases of bench_router have it.
_SECONDS, _BYTES = 0.05, 100_000


def _told(image: worker_pb2.WorkerImage) -> image_pb2.GenerateEvent:
    return image_pb2.GenerateEvent(image=image_pb2.Image(data=image.data, format=image.format))


class Forwarder(image_pb2_grpc.ImageServiceServicer):
    """What one would write without Gesso: each request to the next worker, each event back."""

    def __init__(self, addresses: list[str]) -> None:
        channels = [grpc.aio.insecure_channel(a, options=SIZE_LIMIT) for a in addresses]
        self.stubs = itertools.cycle([worker_pb2_grpc.WorkerStub(c) for c in channels])
        self.numbers = itertools.count()

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See image.proto."""
        asked = worker_pb2.WorkerGenerateRequest(
            request_id=str(next(self.numbers)),
            prompt=request.prompt,
            seed=request.seed,
            progress_steps=STEPS // 2 if request.image_only else 0,
        )
        stub: Any = next(self.stubs)
        async for event in stub.Generate(asked, timeout=30):
            kind = event.WhichOneof("event")
            if kind == "image":
                yield _told(event.image)
            elif request.image_only:
                pass
            elif kind == "started":
                yield image_pb2.GenerateEvent(started=event.started)
            else:
                yield image_pb2.GenerateEvent(progress=event.progress)


class Alone(image_pb2_grpc.ImageServiceServicer):
    """Asks nobody: every request waits as long as a worker takes, and gets the same bytes."""

    def __init__(self, addresses: list[str]) -> None:
        data = struct.pack("<d", _SECONDS) + os.urandom(_BYTES - 8)
        self.image = worker_pb2.WorkerImage(data=data)

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See image.proto."""
        await asyncio.sleep(_SECONDS)
        yield _told(self.image)


class _Stream:
    """One call to a worker for all requests, as this bench's workers take it; each answer is one message."""

    def __init__(self, address: str) -> None:
        self.call = grpc.aio.insecure_channel(address, options=SIZE_LIMIT).stream_stream(
            "/bench.Worker/Serve"
        )()
        self.waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self.unsent: list[bytes] = []
        self.wake = asyncio.Event()
        self.tasks = asyncio.create_task(self._read()), asyncio.create_task(self._write())

    async def ask(self, number: int, message: bytes) -> bytes:
        """The answer, which ends with the eight digits of the number that its question begins with."""
        key = b"%08d" % number
        answer = self.waiting[key] = asyncio.get_running_loop().create_future()
        self.unsent.append(b"\x0a\x08" + key + message)
        self.wake.set()
        return await answer

    async def _write(self) -> None:
        while await self.wake.wait():
            self.wake.clear()
            messages, self.unsent = self.unsent, []
            for message in messages:
                await self.call.write(message)

    async def _read(self) -> None:
        while (message := await self.call.read()) is not grpc.aio.EOF:
            self.waiting.pop(message[-8:]).set_result(message)


class Streams(image_pb2_grpc.ImageServiceServicer):
    """A forwarder without a call for each request to a worker, and without a word before the image."""

    looks = False

    def __init__(self, addresses: list[str]) -> None:
        self.addresses, self.numbers = addresses, itertools.count()
        self.streams: Iterator[_Stream] | None = None
        self.shards: Iterator[Lookups] | None = None
        self.embedding = os.urandom(4 * DIMENSIONS)

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See image.proto."""
        if self.streams is None or self.shards is None:
            streams = [_Stream(a) for a in self.addresses]
            self.streams = itertools.cycle(streams)
            self.shards = itertools.cycle([Lookups(self._look_up_on(s)) for s in streams])
        if self.looks:
            query = worker_pb2.LookupQuery(embedding=self.embedding, limit=2)
            if await next(self.shards).ask(query, 30.0) is None:
                await context.abort(grpc.StatusCode.INTERNAL, "no answer to a look-up")
        asked = worker_pb2.WorkerGenerateRequest(
            prompt=request.prompt, seed=request.seed, progress_steps=STEPS
        )
        answer = await next(self.streams).ask(next(self.numbers), asked.SerializeToString())
        yield _told(worker_pb2.WorkerEvent.FromString(answer).image)

    def _look_up_on(self, stream: _Stream) -> Any:
        async def call(
            request: worker_pb2.LookupRequest, timeout_seconds: float, metadata: Metadata
        ) -> worker_pb2.LookupResponse:
            body = request.SerializeToString()
            message = b"\xd2\x05" + varint(len(body)) + body
            return worker_pb2.LookupResponse.FromString(
                await stream.ask(next(self.numbers), message)
            )

        return call


class LookingStreams(Streams):
    """With one look-up for each request, those that come together in one message."""

    looks = True


KINDS: Mapping[str, Callable[[list[str]], Any]] = {
    "calls": Forwarder,
    "alone": Alone,
    "streams": Streams,
    "streams-and-look-ups": LookingStreams,
}
