"""What is on its way to gRPC clients, who may read it or not: events of one call, and images of all.

gRPC ends a call only after the client has read what the call was given, and keeps that until then: a status
waits behind it, and nothing but the end of the connection takes it back. So nobody who makes an image waits for
a client, and the images that gRPC holds are bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import grpc.aio

from gesso.rpc.v1 import image_pb2
from gesso_router.errors import Ending, RequestError

#: Events that wait for a slow reader; beyond it the oldest progress is left out.
MOST_WAITING = 64


class Outbox:
    """The events of one call, written in order by a task that is there while any wait."""

    __slots__ = ("_over", "_waiting", "_write", "_writer")

    def __init__(self, write: Callable[[image_pb2.GenerateEvent], Awaitable[None]]) -> None:
        """`write` raises grpc.aio.BaseError when the client is gone."""
        self._write = write
        self._waiting: deque[image_pb2.GenerateEvent] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._over = False

    def put(self, event: image_pb2.GenerateEvent) -> bool:
        """Sends an event as soon as the client reads, without waiting for that; False if it is gone."""
        if self._over:
            return False
        if len(self._waiting) >= MOST_WAITING:
            self._leave_one_out()
        self._waiting.append(event)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._empty(), name="events")
        return True

    async def flush(self, seconds: float | None = None) -> bool:
        """Waits until all is written or the client gone, at most so long; False if something still waits."""
        if self._writer is None or self._writer.done():
            return True
        done, _ = await asyncio.wait((self._writer,), timeout=seconds)
        return bool(done)

    def close(self) -> None:
        """Nothing is sent any more: the call is over, though who makes its image may go on."""
        self._over = True
        self._waiting.clear()

    def _leave_one_out(self) -> None:
        for i, event in enumerate(self._waiting):
            if event.HasField("progress"):
                del self._waiting[i]
                return
        self._waiting.pop()

    async def _empty(self) -> None:
        try:
            while self._waiting:
                await self._write(self._waiting.popleft())
        except grpc.aio.BaseError:  # the client is gone
            self.close()


class Unread:
    """Bytes of images that gRPC holds for clients, by client: max-min fair, so that none locks out others."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` is for all clients together; gRPC holds each byte twice."""
        self._most = most_bytes
        self._held: dict[str, int] = {}
        self.bytes = 0

    def check(self, client: str, share: float = 1.0) -> None:
        """Raises RequestError (SHED) where this share of the room is taken, and of a client's equal part, too.

        Who has nothing on its way may always have an image.
        """
        if self.bytes < share * self._most:
            return
        held = self._held.get(client, 0)
        # As if there were one more client: whoever comes next finds room.
        part = self._most // (len(self._held) + 1)
        if held and held >= share * part:
            raise RequestError(
                Ending.SHED,
                "unread-images",
                f"{held} bytes of images are on their way to this client and not read, its part of the "
                f"{self._most} that there may be",
                retry_after_seconds=1.0,
            )

    def add(self, client: str, size: int) -> None:
        """An image goes out."""
        self.bytes += size
        self._held[client] = self._held.get(client, 0) + size

    def remove(self, client: str, size: int) -> None:
        """An image was read, or its call has ended."""
        self.bytes -= size
        left = self._held[client] - size
        if left:
            self._held[client] = left
        else:
            del self._held[client]
