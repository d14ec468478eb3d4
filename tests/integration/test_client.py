"""The Python client, plain and for asyncio, against a router process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from router_process import Process, client_of, fake_workers, router_process

from gesso.client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    Progress,
    RefusedError,
    UnavailableError,
    Wish,
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with router_process(tmp_path_factory.mktemp("client")) as process:
        yield process


async def test_one_image_either_way(process: Process) -> None:
    target = f"127.0.0.1:{process.grpc_port}"
    async with fake_workers(1, step_seconds=0.001) as workers, client_of(process) as router:
        await router.apply(*workers)
        seen: list[Progress] = []
        async with AsyncClient(target) as client:
            image = await client.generate(
                "a star", seed=7, on_progress=seen.append, idempotency_key="one"
            )
            assert image.data == b"image of 7 by worker-0"
            assert (image.seed, image.skipped_steps, image.worker) == (7, 0, "worker-0")
            assert seen[-1] == Progress("worker-0", 0, 50, 50)
            again = await client.generate(Wish("a star", seed=7), idempotency_key="one")
            assert again == image
            with pytest.raises(InvalidRequestError, match="min_quality: 2"):
                await client.generate("a star", min_quality=2.0)
            with pytest.raises(RefusedError) as late:
                await client.generate("a star", slo_seconds=0.001)
            assert late.value.retry_after_seconds is not None

        def plain() -> bytes:
            with Client(target) as client:
                return client.generate("a star", seed=8, format="webp").data

        assert await asyncio.to_thread(plain) == b"image of 8 by worker-0"


async def test_nobody_there(process: Process) -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError):
            await client.generate("a star", timeout_seconds=5)
