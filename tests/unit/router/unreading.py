"""A gRPC client of the images API that speaks HTTP/2 itself, and reads no more than it says."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Mapping

from gesso.rpc.v1 import image_pb2

_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW = 4  # SETTINGS_INITIAL_WINDOW_SIZE


class Unreading:
    """Its calls, each a stream with a window of so many bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = -1
        #: What came of all calls.
        self.data = bytearray()
        #: Calls that ended.
        self.ended: set[int] = set()

    def window(self, size: int) -> None:
        """From now on streams may have so much on the way."""
        self._send(_SETTINGS, 0, 0, struct.pack(">HI", _WINDOW, size))

    async def generate(
        self, request: image_pb2.GenerateRequest, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Begins a call."""
        self._last += 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/gesso.v1.ImageService/Generate",
            ":authority": "router",
            "te": "trailers",
            "content-type": "application/grpc",
            **(metadata or {}),
        }
        self._send(_HEADERS, _END_HEADERS, self._last, b"".join(map(_header, headers.items())))
        message = request.SerializeToString()
        self._send(_DATA, _END_STREAM, self._last, struct.pack(">BI", 0, len(message)) + message)
        await self._writer.drain()

    @property
    def events(self) -> list[image_pb2.GenerateEvent]:
        """Of its only call."""
        found, at = [], 0
        while at < len(self.data):
            end = at + 5 + int.from_bytes(self.data[at + 1 : at + 5], "big")
            found.append(image_pb2.GenerateEvent.FromString(bytes(self.data[at + 5 : end])))
            at = end
        return found

    async def pump(self) -> None:
        """Takes what comes, until the connection ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big")
                payload = await self._reader.readexactly(size)
                if kind == _SETTINGS and not flags & _ACK:
                    self._send(_SETTINGS, _ACK, 0, b"")
                if kind == _DATA:
                    self.data += payload
                ends = kind in (_DATA, _HEADERS) and flags & _END_STREAM
                if ends or kind == _RST_STREAM:
                    self.ended.add(stream)

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
        self._writer.write(head + struct.pack(">I", stream) + payload)


def _header(item: tuple[str, str]) -> bytes:
    """A literal without indexing, of fewer than 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in item)


@contextlib.asynccontextmanager
async def unreading(port: int, window: int = 0) -> AsyncIterator[Unreading]:
    """Connected to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Unreading(reader, writer)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    client.window(window)
    pump = asyncio.create_task(client.pump())
    try:
        yield client
    finally:
        writer.close()
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
