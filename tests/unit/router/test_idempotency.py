"""A request that is sent again is made once; what is kept is bounded in count, bytes and time."""

from __future__ import annotations

import asyncio

import pytest
from router_kit import Clock

from gesso_router.errors import Ending, RequestError
from gesso_router.idempotency import Bounds, Idempotent


class Work:
    def __init__(self, result: bytes = b"image") -> None:
        self.calls = 0
        self.result = result
        self.may_end = asyncio.Event()
        self.error: RequestError | None = None

    async def __call__(self) -> bytes:
        self.calls += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.result


def made(clock: Clock, **bounds: float) -> Idempotent[bytes]:
    return Idempotent(len, Bounds(**bounds), clock)  # type: ignore[arg-type]


async def test_repetitions_wait_for_the_first_and_get_the_same() -> None:
    results, work = made(Clock()), Work()
    calls = [asyncio.ensure_future(results.once("a", "k", b"f", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*calls) == [b"image"] * 3
    assert await results.once("a", "k", b"f", work) == b"image"
    assert work.calls == 1


async def test_another_request_with_the_key_is_refused_and_other_owners_are_apart() -> None:
    results, work = made(Clock()), Work()
    work.may_end.set()
    await results.once("a", "k", b"f", work)
    with pytest.raises(RequestError, match="'k' came with another request") as error:
        await results.once("a", "k", b"g", work)
    assert error.value.ending is Ending.CONFLICT
    await results.once("b", "k", b"g", work)
    assert work.calls == 2


async def test_a_client_that_goes_away_finds_its_image_when_it_comes_back() -> None:
    results, work = made(Clock()), Work()
    first = asyncio.ensure_future(results.once("a", "k", b"f", work))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.may_end.set()
    assert await results.once("a", "k", b"f", work) == b"image"
    assert work.calls == 1


async def test_a_failure_is_told_to_who_waits_and_tried_again() -> None:
    results, work = made(Clock()), Work()
    work.error = RequestError(Ending.UNAVAILABLE, "worker-failed", "no")
    calls = [asyncio.ensure_future(results.once("a", "k", b"f", work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.may_end.set()
    for call in calls:
        with pytest.raises(RequestError, match="no"):
            await call
    work.error = None
    assert await results.once("a", "k", b"f", work) == b"image"
    assert work.calls == 2


async def test_what_is_kept_is_bounded_in_count_bytes_and_time() -> None:
    clock = Clock()
    results = made(clock, count=3, bytes=12, seconds=60.0)

    async def once(key: str, size: int = 4) -> int:
        work = Work(bytes(size))
        work.may_end.set()
        await results.once("a", key, b"f", work)
        return work.calls

    assert [await once(k) for k in "abcd"] == [1, 1, 1, 1]
    assert (len(results), results.bytes) == (3, 12)
    assert await once("a") == 1  # the oldest went
    assert await once("d") == 0
    assert await once("big", 13) == 1
    assert await once("big", 13) == 1  # larger than all that may be kept
    assert results.bytes <= 12
    clock.now += 60
    assert await once("d") == 1
    assert len(results) == 1


async def test_more_than_may_be_under_way_is_refused() -> None:
    results, work = made(Clock(), count=1), Work()
    first = asyncio.ensure_future(results.once("a", "k", b"f", work))
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="under way") as error:
        await results.once("a", "l", b"f", work)
    assert (error.value.ending, error.value.retry_after_seconds) == (Ending.SHED, 1.0)
    await results.close()
    with pytest.raises(RequestError, match="was ended: send it again"):
        await first


async def test_who_waits_for_work_that_is_cancelled_is_answered_and_may_try_again() -> None:
    results, calls = made(Clock()), 0

    async def work() -> bytes:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls == 1:
            raise asyncio.CancelledError
        return b"image"

    waiting = [asyncio.ensure_future(results.once("a", "k", b"f", work)) for _ in range(2)]
    for call in waiting:
        with pytest.raises(RequestError, match="'k' stands for was ended") as error:
            await call
        assert error.value.ending is Ending.UNAVAILABLE
    assert await results.once("a", "k", b"f", work) == b"image"


async def test_a_caller_that_is_cancelled_with_the_work_stays_cancelled() -> None:
    results, work = made(Clock()), Work()
    call = asyncio.ensure_future(results.once("a", "k", b"f", work))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(results.close())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await closing


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\n"])
async def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    with pytest.raises(RequestError, match=r"Idempotency-Key: .* printable ASCII"):
        await made(Clock()).once("a", key, b"f", Work())
