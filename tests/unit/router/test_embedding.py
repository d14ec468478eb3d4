"""Embedding: batches, memory, failures, overload."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from router_kit import Clock

from gesso_router.embedding import EmbedderBusyError, TextEmbedder, Vector


class Counting:
    """Encodes by length; records its batches; can be held."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Vector:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.may_go.wait(10)
        if "bad" in texts:
            raise RuntimeError("bad text")
        return np.array([[len(t), 0.0] for t in texts], dtype=np.float32)


async def test_those_who_come_while_it_is_busy_are_the_next_batch() -> None:
    encode = Counting()
    embedder = TextEmbedder(encode, max_batch=3)
    encode.may_go.clear()
    first = asyncio.create_task(embedder.embed("a"))
    await asyncio.to_thread(encode.entered.wait, 10)
    rest = [asyncio.create_task(embedder.embed(t)) for t in ("bb", "bb", "ccc", "dddd", "eeeee")]
    await asyncio.sleep(0)
    encode.may_go.set()
    assert [float((await t)[0]) for t in (first, *rest)] == [1, 2, 2, 3, 4, 5]
    assert encode.batches == [["a"], ["bb", "ccc", "dddd"], ["eeeee"]]
    await embedder.close()


async def test_it_remembers_the_last_ones_used() -> None:
    encode = Counting()
    embedder = TextEmbedder(encode, remembered=2)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        await embedder.embed(text)
    assert encode.batches == [["a"], ["bb"], ["ccc"], ["bb"]]
    await embedder.close()


async def test_a_failure_hits_its_own_batch_only() -> None:
    embedder = TextEmbedder(Counting())
    with pytest.raises(RuntimeError, match="bad text"):
        await embedder.embed("bad")
    assert float((await embedder.embed("good"))[0]) == 4
    await embedder.close()


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    encode = Counting()
    encode.may_go.clear()
    embedder = TextEmbedder(encode)
    leaving = asyncio.create_task(embedder.embed("a"))
    staying = asyncio.create_task(embedder.embed("a"))
    await asyncio.to_thread(encode.entered.wait, 10)
    leaving.cancel()
    await asyncio.wait({leaving})
    encode.may_go.set()
    assert float((await staying)[0]) == 1
    await embedder.close()


class Slow:
    """Takes so many seconds a prompt on the clock; held at each batch until the test lets it go."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.batches: list[list[str]] = []
        self.began, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, texts: Sequence[str]) -> Vector:
        self.batches.append(list(texts))
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        self.clock.now += self.seconds * len(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    async def is_held(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=10)


def ask(embedder: TextEmbedder, *prompts: str) -> list[asyncio.Task[Vector]]:
    return [asyncio.create_task(embedder.embed(p)) for p in prompts]


async def known_to_take(seconds: float, max_batch: int = 4) -> tuple[TextEmbedder, Slow]:
    """An embedder that has seen how long a prompt takes, and now holds another under way."""
    clock = Clock()
    encode = Slow(clock, seconds)
    embedder = TextEmbedder(encode, max_batch, longest_wait=2.0, clock=clock)
    encode.may_end.release()
    await embedder.embed("seen")
    await encode.is_held()
    ask(embedder, "under way")
    await encode.is_held()
    return embedder, encode


async def test_a_prompt_that_nobody_waits_for_any_more_is_not_embedded() -> None:
    embedder, encode = await known_to_take(0.1)
    leaving, shared, _ = ask(embedder, "left", "shared", "shared")
    await asyncio.sleep(0)
    leaving.cancel()
    shared.cancel()
    await asyncio.wait({leaving, shared})
    (back,) = ask(embedder, "under way")
    await asyncio.sleep(0)
    back.cancel()  # and what is under way is finished all the same
    (staying,) = ask(embedder, "staying")
    for _ in range(2):
        encode.may_end.release()
    await staying
    assert encode.batches[1:] == [["under way"], ["shared", "staying"]]
    await embedder.embed("under way")
    assert len(encode.batches) == 3
    await embedder.close()


async def test_who_could_not_be_embedded_in_time_is_told_at_once() -> None:
    embedder, encode = await known_to_take(0.25)
    # What is under way takes 0.25 s, and 1.2 of 2.0 s may be spent: room for three.
    tasks = ask(embedder, *"abcd", "a")
    _, pending = await asyncio.wait(tasks, timeout=0.05)
    assert pending == {*tasks[:3], tasks[4]}
    with pytest.raises(EmbedderBusyError, match=r"1\.2 s allowed"):
        await tasks[3]
    for _ in range(2):
        encode.may_end.release()
    await asyncio.gather(*pending)
    assert encode.batches[2:] == [["a", "b", "c"]]
    await embedder.close()


async def test_a_batch_ends_before_its_first_prompt_is_due() -> None:
    embedder, encode = await known_to_take(0.4, max_batch=16)
    (first,) = ask(embedder, "a")
    await asyncio.sleep(0)
    encode.clock.now += 0.2
    (second,) = ask(embedder, "b")
    await asyncio.sleep(0)
    encode.clock.now += (
        0.7  # longer than it should have taken: with its 0.4 s, it ends 1.3 s after "a" came
    )
    encode.may_end.release()
    await encode.is_held()
    for _ in range(2):
        encode.may_end.release()
    await asyncio.gather(first, second)
    assert encode.batches[2:] == [["a"], ["b"]]
    await embedder.close()


async def test_an_encoder_that_hangs_is_noticed_and_one_that_came_back_is_used() -> None:
    embedder, encode = await known_to_take(0.01)
    encode.clock.now += 30.0
    (behind,) = ask(embedder, "behind")
    with pytest.raises(EmbedderBusyError):
        await behind
    (under_way,) = ask(embedder, "under way")
    encode.may_end.release()
    await under_way
    # It was slow: nobody waits behind another, but one at a time is tried.
    for i in range(20):
        encode.may_end.release()
        await embedder.embed(f"tried {i}")
    tasks = ask(embedder, *"abcd")
    for _ in range(4):
        encode.may_end.release()
    await asyncio.gather(*tasks)
    await embedder.close()
