"""Results by idempotency key: a request that is sent again gets what the first got, and nothing is done twice.

As the IETF's draft "The Idempotency-Key HTTP Header Field" has it. What failed is not kept: sent again,
it is tried again. A result is kept in this process only.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gesso_router.errors import Ending, RequestError

Result = TypeVar("Result")

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True)
class Bounds:
    """Of what is kept."""

    count: int = 1024
    bytes: int = 64 * 2**20
    seconds: float = 600.0


@dataclass
class _Entry(Generic[Result]):
    fingerprint: bytes
    task: asyncio.Task[Result]
    size: int = 0
    done_s: float | None = None


class Idempotent(Generic[Result]):
    """Runs what has a key once. Lives on one event loop."""

    def __init__(
        self,
        size: Callable[[Result], int],
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`size` gives a result's bytes, `clock` monotonic seconds."""
        self._size = size
        self._bounds = bounds or Bounds()
        self._clock = clock
        #: By owner and key, the longest known first.
        self._entries: OrderedDict[tuple[str, str], _Entry[Result]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self,
        owner: str,
        key: str,
        fingerprint: bytes,
        make: Callable[[], Awaitable[Result]],
    ) -> Result:
        """What `make` gives, from the first call with this owner and key; later ones wait for that.

        The work goes on though its caller is cancelled: that one may come again for it. Raises what `make`
        raises; RequestError (INVALID) on a key that cannot be one, (CONFLICT) where it stands for another
        fingerprint, (SHED) where too much is under way, (UNAVAILABLE) where the work was cancelled.
        """
        if not _KEY.match(key):
            allowed = "1 to 255 printable ASCII characters without spaces"
            message = f"{HEADER}: {key[:64]!r} is not allowed: {allowed}"
            raise RequestError(Ending.INVALID, "invalid_value", message, param=HEADER)
        self._forget()
        entry = self._entries.get((owner, key))
        if entry is None:
            entry = self._begin((owner, key), fingerprint, make)
        elif entry.fingerprint != fingerprint:
            message = (
                f"{HEADER}: {key[:64]!r} came with another request before: a key is for one request "
                "and its repetitions"
            )
            raise RequestError(Ending.CONFLICT, "idempotency_key_reused", message, param=HEADER)
        try:
            return await asyncio.shield(entry.task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not entry.task.cancelled() or (caller is not None and caller.cancelling()):
                raise
            # It is not the caller that was cancelled: who waits must be answered.
            raise RequestError(
                Ending.UNAVAILABLE,
                "idempotency-ended",
                f"{HEADER}: the work that {key[:64]!r} stands for was ended: send it again",
                retry_after_seconds=1.0,
            ) from None

    async def close(self) -> None:
        """Ends what is under way; nobody waits for it any more."""
        tasks = [e.task for e in self._entries.values() if not e.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        self.bytes = 0

    def _begin(
        self, name: tuple[str, str], fingerprint: bytes, make: Callable[[], Awaitable[Result]]
    ) -> _Entry[Result]:
        self._make_room()

        async def work() -> Result:
            return await make()

        entry = _Entry(fingerprint, asyncio.create_task(work(), name="idempotent"))
        self._entries[name] = entry
        entry.task.add_done_callback(lambda _: self._ended(name, entry))
        return entry

    def _ended(self, name: tuple[str, str], entry: _Entry[Result]) -> None:
        if self._entries.get(name) is not entry:
            return
        failed = entry.task.cancelled() or entry.task.exception() is not None
        size = 0 if failed else self._size(entry.task.result())
        if failed or size > self._bounds.bytes:
            del self._entries[name]
            return
        entry.size, entry.done_s = size, self._clock()
        self.bytes += size
        self._forget()

    def _make_room(self) -> None:
        if len(self._entries) < self._bounds.count:
            return
        for name, entry in self._entries.items():
            if entry.done_s is not None:
                self._drop(name)
                return
        raise RequestError(
            Ending.SHED,
            "idempotency-full",
            f"{HEADER}: {self._bounds.count} requests with keys are under way, the most that there may be",
            retry_after_seconds=1.0,
        )

    def _forget(self) -> None:
        """What is too old, then the oldest while there is too much."""
        now = self._clock()
        for name, entry in list(self._entries.items()):
            if entry.done_s is None:
                continue
            old = now - entry.done_s >= self._bounds.seconds
            if not old and self.bytes <= self._bounds.bytes:
                continue
            self._drop(name)

    def _drop(self, name: tuple[str, str]) -> None:
        self.bytes -= self._entries.pop(name).size
