"""gRPC clients on a real server: who reads, who does not, who leaves; none of them is anybody else's matter."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from router_kit import Clock, ScriptedPool, router, service
from unreading import unreading

from gesso.logs import Formatter
from gesso.rpc.v1 import image_pb2, image_pb2_grpc, worker_pb2
from gesso_router.access.callers import Callers
from gesso_router.core import Router
from gesso_router.grpc_api import ImageService, add_image_service, server_options
from gesso_router.idempotency import Idempotent
from gesso_router.images_api import kept_bytes
from gesso_router.outgoing import MOST_WAITING
from gesso_router.settings import RouterSettings

STEPS = 50
KEYS = """
keys:
- {name: shop, tenant: retail, key: shop-key-0123456789}
- {name: blog, tenant: blog, key: blog-key-0123456789}
"""
SHOP, BLOG = (f"Bearer {name}-key-0123456789" for name in ("shop", "blog"))


@dataclass
class Pool(ScriptedPool):
    """Tells every step; each may have to wait until it may be done."""

    data: bytes = b"image"
    told: int = STEPS
    may_begin: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.may_begin.set()
        self.may_end.set()

    async def generate(
        self,
        worker: str,
        request: worker_pb2.WorkerGenerateRequest,
        timeout_seconds: float,
        on_event: Callable[[worker_pb2.WorkerEvent], Awaitable[None]],
    ) -> worker_pb2.WorkerImage:
        self.sent.append((worker, request))
        await self.may_begin.wait()
        started = image_pb2.Started(worker=worker, skipped_steps=0)
        await on_event(worker_pb2.WorkerEvent(started=started))
        for step in range(1, self.told + 1):
            progress = image_pb2.Progress(step=step, steps=STEPS)
            await on_event(worker_pb2.WorkerEvent(progress=progress))
            if step == 1:
                await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return worker_pb2.WorkerImage(data=self.data, format="IMAGE_FORMAT_PNG", width=64)


@dataclass
class Served:
    router: Router
    service: ImageService
    port: int

    @property
    def outcomes(self) -> dict[str, int]:
        return {o.value: n for o, n in self.router.ledger.ended.items() if n}

    @property
    def unread(self) -> int:
        return self.service._unread.bytes


@contextlib.asynccontextmanager
async def serving(
    pool: ScriptedPool, keys: Path | None = None, max_queue: int = 256, **settings: Any
) -> AsyncIterator[Served]:
    made = router(pool, Clock(), service(max_queue=max_queue))
    made.settings = RouterSettings(**settings)
    images = ImageService(made, Callers(keys), Idempotent(kept_bytes))
    server = grpc.aio.server(options=server_options(made.settings))
    add_image_service(images, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Served(made, images, port)
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def stub(served: Served) -> AsyncIterator[Any]:
    """On a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    address = f"127.0.0.1:{served.port}"
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield image_pb2_grpc.ImageServiceStub(channel)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to hold")


async def last(call: Any) -> image_pb2.GenerateEvent:
    async with asyncio.timeout(20):
        events = [event async for event in call]
    return events[-1]


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await last(call)
    return error.value


def asked(prompt: str = "a star", **fields: Any) -> image_pb2.GenerateRequest:
    return image_pb2.GenerateRequest(prompt=prompt, **fields)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(KEYS)
    return file


async def test_a_client_that_follows_its_image_gets_every_event_in_order() -> None:
    async with serving(Pool()) as served, stub(served) as client:
        events = [event async for event in client.Generate(asked())]
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["queued", "started", *["progress"] * STEPS, "image"]
        steps = [event.progress.step for event in events if event.HasField("progress")]
        assert steps == list(range(1, STEPS + 1))
        (image,) = [event async for event in client.Generate(asked(image_only=True))]
        assert image.image.data == b"image"


async def test_a_client_that_reads_nothing_holds_up_nobody() -> None:
    """Not even where its window is shut from the start, and its images fill the queue."""
    async with serving(Pool(), max_queue=4) as served, unreading(served.port) as shut:
        for i in range(4):
            await shut.generate(asked(f"unread {i}"))
        await until(lambda: served.outcomes == {"served_in_slo": 4})
        assert served.router.ledger.open == 0
        async with stub(served) as client:
            assert (await last(client.Generate(asked()))).HasField("image")


async def test_of_too_many_events_for_a_slow_reader_the_oldest_progress_is_left_out() -> None:
    pool = Pool(told=3 * MOST_WAITING)
    async with serving(pool) as served, unreading(served.port) as shut:
        await shut.generate(asked())
        await until(lambda: served.outcomes == {"served_in_slo": 1})
        shut.window(65535)
        await until(lambda: shut.ended == {1})
        kinds = [event.WhichOneof("event") for event in shut.events]
        newest = list(range(1, pool.told + 1))[2 - MOST_WAITING :]
        assert kinds == ["queued", "started", *["progress"] * len(newest), "image"]
        assert [e.progress.step for e in shut.events if e.HasField("progress")] == newest


async def test_an_image_is_given_up_when_its_events_are_not_read_in_time() -> None:
    pool = Pool(data=bytes(10**6))
    async with serving(pool, unread_seconds=0.2) as served, unreading(served.port) as shut:
        await shut.generate(asked())
        await until(lambda: served.outcomes == {"served_in_slo": 1})
        await asyncio.sleep(0.5)
        shut.window(2**24)
        await until(lambda: shut.ended == {1})
        assert all(event.WhichOneof("event") != "image" for event in shut.events)
        assert served.unread == 0


async def test_images_that_are_not_read_are_bounded_and_others_get_theirs(keys: Path) -> None:
    """Replays by key, too, which neither pass a queue nor cost anything."""
    pool = Pool(data=bytes(2**20))
    room = 8 * 2**20
    async with serving(pool, keys, unread_bytes=room) as served, stub(served) as client:
        shop = (("authorization", SHOP), ("idempotency-key", "k"))
        assert (await last(client.Generate(asked(), metadata=shop))).image.data == pool.data
        async with unreading(served.port) as shut:
            for _ in range(40):
                await shut.generate(asked(image_only=True), dict(shop))
            await until(lambda: served.unread >= room // 2)
            await until(lambda: len(shut.ended) > 30)
            assert served.unread < room
            for metadata in (shop, shop[:1]):  # what it is asked for anew is not begun
                refused = await refusal(client.Generate(asked(), metadata=metadata))
                assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                told = dict(refused.trailing_metadata() or ())
                assert (told["reason"], told["retry-after-ms"]) == ("unread-images", "1000")
            blog = (("authorization", BLOG),)
            assert (await last(client.Generate(asked(), metadata=blog))).HasField("image")
            assert len(pool.sent) == 2
        await until(lambda: served.unread == 0)
        assert (await last(client.Generate(asked(), metadata=shop))).HasField("image")


async def test_an_image_that_is_never_read_goes_with_its_connection() -> None:
    pool = Pool(data=bytes(2**20))
    ages = {"connection_age": 0.5, "late_factor": 0.0, "unread_seconds": 0.5}
    async with serving(pool, **ages) as served, unreading(served.port) as shut:
        await shut.generate(asked(image_only=True))
        await until(lambda: served.unread > 2**20)
        await until(lambda: served.unread == 0)


async def test_who_leaves_cancels_the_work() -> None:
    pool = Pool()
    pool.may_end.clear()
    async with serving(pool) as served, stub(served) as client:
        call = client.Generate(asked())
        while not (await call.read()).HasField("progress"):
            pass
        call.cancel()
        await until(lambda: served.outcomes == {"cancelled": 1})


@pytest.mark.parametrize("image_only", [False, True])
async def test_who_repeats_what_a_client_left_gets_its_image(image_only: bool) -> None:
    """With a key the work goes on though nobody is left to hear of its steps, and is done once."""
    pool = Pool()
    pool.may_end.clear()
    metadata = (("idempotency-key", "k"),)
    async with serving(pool) as served, stub(served) as gone, stub(served) as client:
        first = gone.Generate(asked(image_only=image_only), metadata=metadata)
        reading = asyncio.create_task(first.read())
        await until(lambda: len(pool.sent) == 1)
        second = asyncio.create_task(last(client.Generate(asked(), metadata=metadata)))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.sleep(0.1)
        pool.may_end.set()
        image = await second
        assert image.image.data == b"image"
        assert await last(client.Generate(asked(), metadata=metadata)) == image
        assert (len(pool.sent), served.outcomes) == (1, {"served_in_slo": 1})


@pytest.mark.parametrize("metadata", [(), (("idempotency-key", "k"),)])
@pytest.mark.parametrize("image_only", [False, True])
async def test_an_unforeseen_error_is_told_without_its_text(
    metadata: Any, image_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(Formatter("router", "json").format(record))

    handler = Lines()
    logging.getLogger("gesso_router.grpc_api").addHandler(handler)
    try:
        pool = Pool(error=ValueError("cannot draw 'a secret star'"))
        async with serving(pool) as served, stub(served) as client:
            asking = asked("a secret star", image_only=image_only, request_id="r-1")
            refused = await refusal(client.Generate(asking, metadata=metadata))
    finally:
        logging.getLogger("gesso_router.grpc_api").removeHandler(handler)
    assert refused.code() is grpc.StatusCode.INTERNAL
    assert refused.details() == "the router failed; its log says why"
    assert dict(refused.trailing_metadata() or ())["x-request-id"] == "r-1"
    (line,) = lines
    assert "ValueError: cannot draw" in line
    assert '"request":"r-1"' in line.replace(": ", ":")
    assert "secret" not in line
