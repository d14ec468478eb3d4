"""gRPC clients without our stubs: reflection and health, by descriptors and by grpcurl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from fake_worker import FakeWorker
from router_process import Process, client_of, fake_workers, router_process
from worker_process import service_file, started

CACHE = Path(os.environ.get("GESSO_CACHE") or Path.home() / ".cache" / "gesso")
GRPCURL = shutil.which("grpcurl") or shutil.which("grpcurl", path=CACHE / "bin")
needs_grpcurl = pytest.mark.skipif(
    GRPCURL is None, reason="there is no grpcurl: `make go-tools` makes it, with Go and a network"
)

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
IMAGES, CONTROL, WORKER = (
    f"gesso.v1.{name}" for name in ("ImageService", "RouterControl", "Worker")
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with router_process(tmp_path_factory.mktemp("reflection")) as process:
        yield process


@pytest.fixture
async def workers(process: Process) -> AsyncIterator[list[FakeWorker]]:
    async with client_of(process) as client, fake_workers(1, step_seconds=0.001) as workers:
        await client.apply(*workers)
        yield workers


class Described:
    """A server as its own descriptors tell it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._database)

    @property
    def services(self) -> set[str]:
        return set(self._database.get_services())

    def methods(self, service: str) -> dict[str, tuple[str, str]]:
        found = self._pool.FindServiceByName(service).methods
        return {m.name: (m.input_type.full_name, m.output_type.full_name) for m in found}

    def call(self, path: str, /, **fields: Any) -> list[Any]:
        """What the method at `SERVICE/METHOD` answers, one after the other."""
        service, _, method = path.partition("/")
        described = self._pool.FindServiceByName(service).FindMethodByName(method)
        request, response = (
            GetMessageClass(t) for t in (described.input_type, described.output_type)
        )
        kind = "unary_stream" if described.server_streaming else "unary_unary"
        made = getattr(self._channel, kind)(
            f"/{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = made(request(**fields), timeout=20)
        return list(answer) if described.server_streaming else [answer]


async def test_a_router_can_be_used_by_its_descriptors(
    process: Process, workers: list[FakeWorker]
) -> None:
    def use() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{process.grpc_port}") as channel:
            router = Described(channel)
            assert router.services == {IMAGES, CONTROL, HEALTH, REFLECTION}
            assert router.methods(IMAGES) == {
                "Generate": ("gesso.v1.GenerateRequest", "gesso.v1.GenerateEvent")
            }
            for service in ("", IMAGES, CONTROL):
                (health,) = router.call(f"{HEALTH}/Check", service=service)
                assert (
                    health.status
                    == health.DESCRIPTOR.enum_types_by_name["ServingStatus"]
                    .values_by_name["SERVING"]
                    .number
                )
            events = router.call(f"{IMAGES}/Generate", prompt="a star", seed=7, request_id="mine")
            assert events[-1].image.data == b"image of 7 by worker-0"
            assert {e.request_id for e in events} == {"mine"}
            assert events[0].WhichOneof("event") == "queued"

    await asyncio.to_thread(use)


def test_a_worker_tells_what_it_is_before_it_serves(tmp_path: Path) -> None:
    with started(tmp_path, service_file(tmp_path)) as start:
        worker = start("worker-0")
        grpc.channel_ready_future(worker.channel).result(timeout=60)
        described = Described(worker.channel)
        assert described.services == {WORKER, HEALTH, REFLECTION}
        assert {"Generate", "Lookup", "FetchLatents", "Stats"} <= set(described.methods(WORKER))
        (stats,) = described.call(f"{WORKER}/Stats")
        assert stats.worker == "worker-0"


def grpcurl(*words: str) -> str:
    assert GRPCURL is not None
    done = subprocess.run(
        [GRPCURL, "-plaintext", *words], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_grpcurl
async def test_grpcurl_lists_describes_and_makes_an_image(
    process: Process, workers: list[FakeWorker]
) -> None:
    at = f"127.0.0.1:{process.grpc_port}"
    listed = await asyncio.to_thread(grpcurl, at, "list")
    assert set(listed.split()) == {IMAGES, CONTROL, HEALTH, REFLECTION}
    described = await asyncio.to_thread(grpcurl, at, "describe", "gesso.v1.GenerateRequest")
    assert "string prompt = " in described
    health = await asyncio.to_thread(grpcurl, at, f"{HEALTH}/Check")
    assert json.loads(health) == {"status": "SERVING"}
    data = json.dumps({"prompt": "a star", "seed": 7})
    made = await asyncio.to_thread(grpcurl, "-d", data, at, f"{IMAGES}/Generate")
    decoder, events, rest = json.JSONDecoder(), [], made.strip()
    while rest:
        event, end = decoder.raw_decode(rest)
        events.append(event)
        rest = rest[end:].lstrip()
    assert events[-1]["image"]["data"] == "aW1hZ2Ugb2YgNyBieSB3b3JrZXItMA=="
    assert events[-1]["image"]["worker"] == "worker-0"
