"""Embeds prompts on one thread, those that come while it is busy as one batch, and remembers what it embedded.

Nobody waits for company: under load there is always some. Nor does anybody wait in vain: who could not be
embedded in time is told so at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

#: Share of the longest wait that a wait may come to by its estimate. Prompts differ in length: with more, some
#: wait in vain, and batches are cut short.
_SHARE = 0.6


class EmbedderBusyError(Exception):
    """A prompt could not be embedded in time: too many wait before it."""


class Embedder(Protocol):
    """Text in, unit vectors out."""

    async def embed(self, prompt: str) -> Vector:
        """The embedding of a prompt, float32, shape (d,), length 1. May raise EmbedderBusyError at once."""


Encode = Callable[[Sequence[str]], Vector]


@dataclass(frozen=True)
class EncodePace:
    """Seconds a prompt takes in a batch, by the last batches, each counting less the older it is."""

    seconds: float = 0.0
    prompts: float = 0.0

    def after(self, prompts: int, seconds: float) -> EncodePace:
        """After a batch."""
        return EncodePace(0.8 * self.seconds + seconds, 0.8 * self.prompts + prompts)

    @property
    def each(self) -> float:
        """Seconds of a prompt; 0 before the first."""
        return self.seconds / self.prompts if self.prompts else 0.0


@dataclass
class _Asked:
    """A prompt to be embedded, until `due_s` at the latest, and how many wait for it."""

    prompt: str
    due_s: float
    vector: asyncio.Future[Vector]
    waiters: int = 0


class TextEmbedder:
    """Runs an encode function in a thread, in batches, behind an LRU keyed by the prompt's SHA-256."""

    def __init__(
        self,
        encode: Encode,
        max_batch: int = 16,
        remembered: int = 4096,
        longest_wait: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`encode` maps n texts to unit vectors of shape (n, d); it is called from one thread only.

        Nobody is let in who would have to wait longer than `longest_wait` seconds for it.
        """
        self._encode = encode
        self._max_batch = max_batch
        self._remembered = remembered
        self._longest = longest_wait
        self._clock = clock
        self._pace = EncodePace()
        self._under_way: list[bytes] = []
        self._began_s = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._pending: OrderedDict[bytes, _Asked] = OrderedDict()  # those under way first
        self._runner: asyncio.Task[None] | None = None

    async def embed(self, prompt: str) -> Vector:
        """See Embedder. Equal prompts under way share one computation."""
        key = hashlib.sha256(prompt.encode()).digest()
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        asked = self._pending.get(key)
        if asked is None:
            asked = self._let_in(prompt)
            self._pending[key] = asked
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="embed")
        asked.waiters += 1
        try:
            # Shielded: one client that goes away must not take the answer from the others.
            return await asyncio.shield(asked.vector)
        finally:
            asked.waiters -= 1
            if not asked.waiters and key not in self._under_way and self._pending.get(key) is asked:
                del self._pending[key]  # nobody is left who wants it

    async def close(self) -> None:
        """Ends the thread; prompts under way are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=2.0)
        for asked in self._pending.values():
            asked.vector.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _let_in(self, prompt: str) -> _Asked:
        """A new prompt, at the end of the queue. Raises EmbedderBusyError."""
        now, each, left = self._clock(), self._pace.each, 0.0
        if self._under_way:
            took, count = now - self._began_s, len(self._under_way)
            each = max(each, took / count)  # one that hangs is noticed before it ends
            left = count * each - took
        before = len(self._pending) - len(self._under_way)
        wait, most = left + (before + 1) * each, _SHARE * self._longest
        # Whoever comes while nobody else is here is let in: so the pace is learned anew.
        if self._pending and wait > most:
            raise EmbedderBusyError(
                f"embedding would take {wait:.1f} s behind {before} other prompts, more than the "
                f"{most:.1f} s allowed"
            )
        return _Asked(prompt, now + self._longest, asyncio.get_running_loop().create_future())

    def _next(self) -> list[bytes]:
        """The next batch: no more than can be embedded before the first of them is due."""
        now, each = self._clock(), self._pace.each
        first = next(iter(self._pending.values()))
        fit = (first.due_s - now) / each if each > 0.0 else self._max_batch
        return list(islice(self._pending, max(1, int(min(fit, self._max_batch)))))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            keys = self._under_way = self._next()
            texts = [self._pending[k].prompt for k in keys]
            self._began_s = self._clock()
            try:
                vectors = await loop.run_in_executor(self._thread, self._encode, texts)
            except Exception as error:  # a failing encoder fails its prompts, not the loop
                for key in keys:
                    self._settle(key, error)
                continue
            finally:
                self._under_way = []
            self._pace = self._pace.after(len(keys), self._clock() - self._began_s)
            for key, vector in zip(keys, vectors, strict=True):
                self._cache[key] = vector
                self._settle(key, vector)
            while len(self._cache) > self._remembered:
                self._cache.popitem(last=False)

    def _settle(self, key: bytes, result: Vector | Exception) -> None:
        future = self._pending.pop(key).vector
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # nobody may be left to ask
        else:
            future.set_result(result)
