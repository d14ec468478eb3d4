"""Fetches latents from other workers' shards and brings them some, and says plainly when it could not."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import grpc
import numpy as np

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.tls import Tls, open_channel
from gesso.tracing import OFF, Tracing
from gesso.vectors import packed
from gesso_worker.cache.latent_file import Latents
from gesso_worker.cache.records import HeldLatents, Portable, Post

#: Bytes of a message between workers: SD-XL's latents are 128 KiB, an image of 4096 x 4096 may take 40 MB.
MESSAGE_BYTES: Final = 64 << 20
_CLOSE_S: Final = 1.0
_MOST_CHANNELS: Final = 64
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class PeerError(Exception):
    """The peer has not given usable latents; the message says why, `kind` in a word."""

    def __init__(self, message: str, kind: str = "unusable") -> None:
        super().__init__(message)
        self.kind = kind


class Peers:
    """Channels to other workers, the least recently used closed beyond 64. Lives on one event loop."""

    def __init__(self, tls: Tls | None = None, tracing: Tracing = OFF) -> None:
        self._tls = tls
        self._tracing = tracing
        self._tls_version = 0
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def fetch(
        self,
        address: str,
        tenant: str,
        entry_id: str,
        wanted: int,
        shape: tuple[int, ...],
        fingerprint: str,
        deadline_s: float,
    ) -> HeldLatents:
        """The peer's largest held level of at most `wanted`. Raises PeerError.

        Latents of another fingerprint, shape or type, or that are not finite, are refused.
        """
        request = worker_pb2.FetchLatentsRequest(
            tenant=tenant, entry_id=entry_id, skipped_steps=wanted
        )
        stub: Any = worker_pb2_grpc.WorkerStub(self._channel(address))
        with self._tracing.calling("gesso.v1.Worker/FetchLatents", address):
            metadata = self._tracing.metadata()
            try:
                response = await stub.FetchLatents(request, timeout=deadline_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise PeerError(f"{address}: {error.code().name}", error.code().name) from error
        if not 0 < response.skipped_steps <= wanted:
            raise PeerError(
                f"{address}: level {response.skipped_steps} where {wanted} was asked for"
            )
        if response.fingerprint != fingerprint:
            raise PeerError(f"{address}: latents of fingerprint {response.fingerprint}")
        latents = unpack(response)
        if latents.shape != shape or not np.isfinite(latents).all():
            raise PeerError(f"{address}: latents of shape {latents.shape}, or not finite")
        return HeldLatents(response.skipped_steps, latents, response.fingerprint)

    async def room(self, address: str, fingerprint: str, deadline_s: float) -> int:
        """Bytes that are free in a peer's shard. Raises PeerError, also where it holds other latents."""
        stub: Any = worker_pb2_grpc.WorkerStub(self._channel(address))
        try:
            stats = await stub.Stats(worker_pb2.StatsRequest(), timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise PeerError(f"{address}: {error.code().name}") from error
        if stats.fingerprint != fingerprint:
            raise PeerError(f"{address}: its latents are of fingerprint {stats.fingerprint!r}")
        memory = max(0, int(stats.cache_capacity_bytes) - int(stats.cache_bytes))
        return memory + max(0, int(stats.cache_disk_capacity_bytes) - int(stats.cache_disk_bytes))

    async def store(
        self, address: str, fingerprint: str, entries: Sequence[Portable], deadline_s: float
    ) -> worker_pb2.StoreEntriesResponse:
        """Has a peer store entries. Raises PeerError."""
        stub: Any = worker_pb2_grpc.WorkerStub(self._channel(address))
        request = worker_pb2.StoreEntriesRequest(
            fingerprint=fingerprint, entries=[pack_entry(e) for e in entries]
        )
        try:
            response: worker_pb2.StoreEntriesResponse = await stub.StoreEntries(
                request, timeout=deadline_s
            )
        except grpc.aio.AioRpcError as error:
            raise PeerError(f"{address}: {error.code().name}: {error.details()}") from error
        if len(response.stored) != len(entries):
            raise PeerError(f"{address}: {len(response.stored)} answers to {len(entries)} entries")
        return response

    async def announce(
        self,
        address: str,
        worker: str,
        fingerprint: str,
        placement: str,
        posts: Sequence[worker_pb2.Signpost],
        deadline_s: float,
    ) -> str:
        """Tells a peer what `worker` holds; gives the peer's life. Raises PeerError."""
        stub: Any = worker_pb2_grpc.WorkerStub(self._channel(address))
        request = worker_pb2.AnnounceRequest(
            worker=worker, fingerprint=fingerprint, placement=placement, signposts=posts
        )
        try:
            response = await stub.Announce(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise PeerError(f"{address}: {error.code().name}: {error.details()}") from error
        return str(response.life)

    async def close(self) -> None:
        """Closes every channel."""
        channels = list(self._channels.values())
        self._channels.clear()
        await asyncio.gather(*(c.close(None) for c in channels), *self._closing)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._tls is not None and self._tls.refresh() != self._tls_version:
            # A channel keeps the certificates that it was opened with.
            self._tls_version = self._tls.version
            while self._channels:
                self._close_oldest()
        channel = self._channels.get(address)
        if channel is None:
            limits = (
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                # A peer that was started anew is found again at once, not after gRPC's two minutes.
                ("grpc.max_reconnect_backoff_ms", 1000),
            )
            channel = self._channels[address] = open_channel(self._tls, address, limits)
        self._channels.move_to_end(address)
        if len(self._channels) > _MOST_CHANNELS:
            self._close_oldest()
        return channel

    def _close_oldest(self) -> None:
        _, oldest = self._channels.popitem(last=False)
        task = asyncio.ensure_future(oldest.close(_CLOSE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def pack(held: HeldLatents) -> worker_pb2.FetchLatentsResponse:
    """Latents as they travel."""
    name = held.latents.dtype.name
    return worker_pb2.FetchLatentsResponse(
        skipped_steps=held.level,
        shape=held.latents.shape,
        dtype=name,
        data=held.latents.astype(_DTYPES[name], copy=False).tobytes(),
        fingerprint=held.fingerprint,
    )


def pack_entry(entry: Portable) -> worker_pb2.CacheEntry:
    """An entry as it travels."""
    return worker_pb2.CacheEntry(
        tenant=entry.tenant,
        embedding=packed(entry.embedding),
        levels=[
            worker_pb2.HeldLevel(
                skipped_steps=level,
                shape=array.shape,
                dtype=array.dtype.name,
                data=array.astype(_DTYPES[array.dtype.name], copy=False).tobytes(),
                hits=entry.hits.get(level, 0),
                origin=entry.origins.get(level, ""),
            )
            for level, array in sorted(entry.latents.items())
        ],
    )


def pack_post(entry_id: str, post: Post | None) -> worker_pb2.Signpost:
    """What is told of an entry; None: it is gone."""
    if post is None:
        return worker_pb2.Signpost(entry_id=entry_id)
    return worker_pb2.Signpost(
        tenant=post.tenant,
        entry_id=entry_id,
        embedding=packed(post.embedding),
        held_levels=post.held_levels,
    )


def unpack(response: worker_pb2.FetchLatentsResponse | worker_pb2.HeldLevel) -> Latents:
    """The array of a response. Raises PeerError if type, shape and bytes do not fit."""
    dtype = _DTYPES.get(response.dtype)
    if dtype is None:
        raise PeerError(f"dtype: {response.dtype!r} is not allowed: one of {', '.join(_DTYPES)}")
    shape = tuple(response.shape)
    if len(response.data) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise PeerError(f"{len(response.data)} bytes do not make {shape} of {response.dtype}")
    array: Latents = np.frombuffer(response.data, dtype=dtype).reshape(shape)
    return array
