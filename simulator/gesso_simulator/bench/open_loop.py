"""Sends each request at its time, whatever became of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar


class Timed(Protocol):
    """Something that is due at a time, in seconds from the beginning."""

    @property
    def at_s(self) -> float:
        """When."""


R = TypeVar("R", bound=Timed)
T = TypeVar("T")


async def open_loop(
    requests: Sequence[R],
    send: Callable[[R, float], Awaitable[T]],
    on_start: Callable[[float], None] = lambda _: None,
    on_sent: Callable[[float], None] = lambda _: None,
) -> list[T]:
    """The results in order. `send` gets a request and the monotonic time of second 0, and must not raise.

    `on_start` is called with that time, `on_sent` with how many seconds too late a request went out: latencies
    are to be counted from `at_s`, so that a sender that falls behind is seen and hides nothing (Tene's
    "coordinated omission").
    """
    start = time.monotonic()
    on_start(start)
    tasks: list[asyncio.Future[T]] = []
    try:
        for request in requests:
            due = start + request.at_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            on_sent(max(0.0, time.monotonic() - due))
            tasks.append(asyncio.ensure_future(send(request, start)))
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
