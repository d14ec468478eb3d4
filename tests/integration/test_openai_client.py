"""The official `openai` client, unmodified, against a router process with fake workers."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from router_process import Client, Process, client_of, fake_workers, free_ports, router_process

openai = pytest.importorskip("openai")

ALICE, BOB = "alice-has-this-key", "bob-has-another-key"
KEYS = f"""
keys:
- {{name: alice, tenant: team-a, key: {ALICE}, imagesPerMinute: 60, burst: 40}}
- {{name: bob, tenant: team-b, key: {BOB}, imagesPerMinute: 1, burst: 1}}
"""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("openai")
    (folder / "keys.yaml").write_text(KEYS)
    control, _ = free_ports()
    extra = {"--keys": str(folder / "keys.yaml"), "--control": f"127.0.0.1:{control}"}
    with router_process(folder, extra=extra) as process:
        process.control_port = control
        yield process


@pytest.fixture
async def router(process: Process) -> AsyncIterator[Client]:
    async with client_of(process) as client:
        yield client


@pytest.fixture
async def client(process: Process) -> AsyncIterator[Any]:
    url = f"http://127.0.0.1:{process.http_port}/v1"
    async with openai.AsyncOpenAI(api_key=ALICE, base_url=url, max_retries=0, timeout=20) as made:
        yield made


async def test_images_models_and_extensions(router: Client, client: Any) -> None:
    async with fake_workers(2, step_seconds=0.001) as workers:
        await router.apply(*workers)
        models = await client.models.list()
        assert [m.id for m in models.data] == ["tiny"]
        assert (await client.models.retrieve("tiny")).owned_by == "gesso"
        answer = await client.images.generate(
            model="tiny",
            prompt="a red star",
            n=2,
            size="64x64",
            response_format="b64_json",
            output_format="webp",
            user="somebody",
            extra_body={
                "seed": 3,
                "slo_ms": 4000,
                "min_quality": 0.9,
                "negative_prompt": "a ring",
                "guidance_scale": 2.0,
            },
        )
        images = [base64.b64decode(d.b64_json) for d in answer.data]
        assert [i[:10] for i in images] == [b"image of 3", b"image of 4"]
        assert (answer.output_format, answer.size, answer.background) == ("webp", "64x64", "opaque")
        told = answer.data[1].gesso
        assert (told["skipped_steps"], told["seed"]) == (0, "4")
        assert told["worker"] in {"worker-0", "worker-1"}
        assert told["generate_seconds"] > 0
        assert {w.negative_prompt for x in workers for w in x.requests} == {"a ring"}
        assert {w.tenant for x in workers for w in x.requests} == {"team-a/somebody"}

        raw = await client.images.with_raw_response.generate(prompt="a red star")
        assert float(raw.headers["X-Gesso-Generate-Seconds"]) > 0
        assert raw.headers["X-Gesso-Worker"] in {"worker-0", "worker-1"}


async def test_requests_have_an_id_of_the_clients_or_one_of_their_own(
    router: Client, client: Any
) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)

        async def generate(given: str, **fields: Any) -> tuple[str, str]:
            headers = {"X-Request-Id": given}
            raw = await client.images.with_raw_response.generate(
                prompt="a red star", extra_headers=headers, **fields
            )
            return raw.headers["x-request-id"], raw.headers["X-Gesso-Request-Id"]

        assert await generate("mine-1") == ("mine-1", "mine-1")
        assert await generate("mine-2", n=2) == ("mine-2", "mine-2-0, mine-2-1")
        # What cannot be one, or would break a line of the log, is replaced.
        for bad in ("a b", "x" * 129, "{}"):
            own, told = await generate(bad)
            assert own == told != bad
            assert len(own) == 32
        with pytest.raises(openai.BadRequestError) as refused:
            await client.images.generate(prompt="", extra_headers={"X-Request-Id": "mine-3"})
        assert refused.value.request_id == "mine-3"


async def test_by_url(router: Client, client: Any) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)
        answer = await client.images.generate(
            prompt="a ring", response_format="url", output_format="jpeg", extra_body={"seed": 5}
        )
        (image,) = answer.data
        assert image.b64_json is None
        async with httpx.AsyncClient(trust_env=False) as browser:
            got = await browser.get(image.url)  # no key: to know the URL is to be allowed
            assert got.content == b"image of 5 by worker-0"
            assert got.headers["content-type"] == "image/jpeg"
            gone = await browser.get(image.url + "x")
            assert gone.json()["error"]["code"] == "not_found"


async def test_streams_previews_then_the_image(router: Client, client: Any) -> None:
    async with fake_workers(1, step_seconds=0.002) as workers:
        await router.apply(*workers)
        stream = await client.images.generate(
            prompt="a square", stream=True, partial_images=2, extra_body={"seed": 1}
        )
        events = [e async for e in stream]
        assert [e.type for e in events] == [
            "image_generation.partial_image",
            "image_generation.partial_image",
            "image_generation.completed",
        ]
        assert [e.partial_image_index for e in events[:2]] == [0, 1]
        assert base64.b64decode(events[0].b64_json) == b"preview at 16"
        assert base64.b64decode(events[2].b64_json) == b"image of 1 by worker-0"
        assert (events[2].size, events[2].output_format, events[2].usage.total_tokens) == (
            "64x64",
            "png",
            0,
        )
        assert events[2].gesso["skipped_steps"] == 0


async def test_who_leaves_a_stream_frees_the_worker(router: Client, client: Any) -> None:
    async with fake_workers(1, step_seconds=0.05) as workers:
        await router.apply(*workers)
        stream = await client.images.generate(prompt="a slow one", stream=True, partial_images=3)
        async for _ in stream:
            break
        await stream.close()
        async with asyncio.timeout(5):
            await workers[0].saw_cancel.wait()


async def test_errors_are_the_clients_own_classes(
    process: Process, router: Client, client: Any
) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)
        with pytest.raises(openai.BadRequestError, match="style: not supported") as bad:
            await client.images.generate(prompt="a star", style="vivid")
        assert (bad.value.param, bad.value.code) == ("style", "unsupported_parameter")
        with pytest.raises(openai.NotFoundError, match="'dall-e-3' does not exist"):
            await client.models.retrieve("dall-e-3")
        with pytest.raises(openai.NotFoundError, match="there is no such path"):
            await client.chat.completions.create(model="tiny", messages=[])
        with pytest.raises(openai.RateLimitError) as late:
            await client.images.generate(prompt="a star", extra_body={"slo_ms": 5})
        assert late.value.response.headers["Retry-After"] == "1"
        with pytest.raises(openai.RateLimitError):
            await client.images.generate(prompt="a star", stream=True, extra_body={"slo_ms": 5})
        for key in ("nobody-has-this-key", BOB + "x"):
            with pytest.raises(openai.AuthenticationError, match="not one that is known"):
                await client.with_options(api_key=key).images.generate(prompt="a star")
        bob = client.with_options(api_key=BOB)
        await bob.images.generate(prompt="a star")
        with pytest.raises(openai.RateLimitError, match="1 images per minute") as limited:
            await bob.images.generate(prompt="a star")
        assert 50 <= int(limited.value.response.headers["Retry-After"]) <= 60


async def test_a_repeated_request_is_generated_once(router: Client, client: Any) -> None:
    async with fake_workers(1, step_seconds=0.004) as workers:
        await router.apply(*workers)
        fields: dict[str, Any] = {
            "prompt": "once",
            "extra_headers": {"Idempotency-Key": "order-1"},
        }
        first, second = await asyncio.gather(
            client.images.generate(**fields), client.images.generate(**fields)
        )
        third = await client.images.generate(**fields)
        assert first.data[0].b64_json == second.data[0].b64_json == third.data[0].b64_json
        assert first.data[0].gesso == third.data[0].gesso
        assert len(workers[0].requests) == 1
        with pytest.raises(openai.ConflictError, match="came with another request before"):
            await client.images.generate(**{**fields, "prompt": "twice"})


async def test_grpc_needs_the_key_and_knows_repetitions(router: Client) -> None:
    import grpc
    from router_process import code_of

    from gesso.rpc.v1 import image_pb2, router_pb2_grpc

    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)
        request = image_pb2.GenerateRequest(prompt="a ring", tenant="team-b")

        async def generate(*metadata: tuple[str, str]) -> Any:
            call = router.images.Generate(request, timeout=10, metadata=metadata)
            return [e async for e in call][-1].image

        for metadata in ((), (("authorization", "Bearer nobody-has-this-key"),)):
            code, details, _ = await code_of(generate(*metadata))
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "API key" in details
        known = (("authorization", f"Bearer {ALICE}"), ("idempotency-key", "order-2"))
        first = await generate(*known)
        assert await generate(*known) == first
        assert [r.tenant for r in workers[0].requests] == ["team-a/team-b"]
        # What controls a router is not on the clients' port.
        async with grpc.aio.insecure_channel(f"127.0.0.1:{router.process.grpc_port}") as channel:
            from gesso.rpc.v1 import router_pb2

            control = router_pb2_grpc.RouterControlStub(channel)
            code, _, _ = await code_of(control.Report(router_pb2.ReportRequest(), timeout=5))
            assert code is grpc.StatusCode.UNIMPLEMENTED


def test_logs_hold_no_prompt_and_no_key(process: Process) -> None:
    text = process.stderr.read_text()
    assert "prompt_hash" in text
    for secret in (ALICE, BOB, "nobody-has-this-key", "star", "ring", "once", "order-1"):
        assert secret not in text
