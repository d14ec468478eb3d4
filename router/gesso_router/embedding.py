"""Embeds prompts on one thread, those that come while it is busy as one batch, and remembers what it embedded.

Nobody waits for company: under load there is always some.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Text in, unit vectors out."""

    async def embed(self, prompt: str) -> Vector:
        """The embedding of a prompt, float32, shape (d,), length 1."""


Encode = Callable[[Sequence[str]], Vector]


class TextEmbedder:
    """Runs an encode function in a thread, in batches, behind an LRU keyed by the prompt's SHA-256."""

    def __init__(self, encode: Encode, max_batch: int = 16, remembered: int = 4096) -> None:
        """`encode` maps n texts to unit vectors of shape (n, d); it is called from one thread only."""
        self._encode = encode
        self._max_batch = max_batch
        self._remembered = remembered
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._pending: OrderedDict[bytes, tuple[str, asyncio.Future[Vector]]] = OrderedDict()
        self._runner: asyncio.Task[None] | None = None

    async def embed(self, prompt: str) -> Vector:
        """See Embedder. Equal prompts under way share one computation."""
        key = hashlib.sha256(prompt.encode()).digest()
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        waiting = self._pending.get(key)
        if waiting is None:
            waiting = (prompt, asyncio.get_running_loop().create_future())
            self._pending[key] = waiting
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="embed")
        # Shielded: one client that goes away must not take the answer from the others.
        return await asyncio.shield(waiting[1])

    async def close(self) -> None:
        """Ends the thread; prompts under way are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=2.0)
        for _, future in self._pending.values():
            future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            keys = list(self._pending)[: self._max_batch]
            texts = [self._pending[k][0] for k in keys]
            try:
                vectors = await loop.run_in_executor(self._thread, self._encode, texts)
            except Exception as error:  # a failing encoder fails its prompts, not the loop
                for key in keys:
                    self._settle(key, error)
                continue
            for key, vector in zip(keys, vectors, strict=True):
                self._cache[key] = vector
                self._settle(key, vector)
            while len(self._cache) > self._remembered:
                self._cache.popitem(last=False)

    def _settle(self, key: bytes, result: Vector | Exception) -> None:
        _, future = self._pending.pop(key)
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # nobody may be left to ask
        else:
            future.set_result(result)
