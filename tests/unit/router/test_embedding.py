"""Embedding: batches, memory, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from gesso_router.embedding import TextEmbedder, Vector


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
