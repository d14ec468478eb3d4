"""The part of the Worker service that is about the shard; open whatever the model does."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import grpc
from opentelemetry.trace import INVALID_SPAN, Span

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.tracing import OFF, Tracing, carrier_of, failed, rpc
from gesso.vectors import packed
from gesso_worker.cache.announcer import Announcer
from gesso_worker.cache.fetching import fetch
from gesso_worker.cache.handover import hand_over
from gesso_worker.cache.peers import pack
from gesso_worker.cache.records import Match
from gesso_worker.requests import (
    BadRequestError,
    Query,
    check_announce,
    check_entries,
    check_hand_over,
    check_lookup,
    check_place,
    check_withdraw,
)
from gesso_worker.serving import Store

Context = grpc.aio.ServicerContext[Any, Any]


def _told(match: Match) -> worker_pb2.Match:
    return worker_pb2.Match(
        entry_id=match.entry_id,
        similarity=match.similarity,
        held_levels=match.held_levels,
        embedding=packed(match.embedding),
        worker=match.worker,
    )


async def abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    """Ends a call with a status."""
    await context.abort(code, message)
    raise AssertionError("abort returned")


class ShardServicer(worker_pb2_grpc.WorkerServicer):
    """What of the Worker service is about the shard; `store` is None until the own model was loaded."""

    def __init__(self, name: str, tracing: Tracing = OFF) -> None:
        self.name = name
        self.tracing = tracing
        self.store: Store | None = None
        # Searching a large index takes tens of milliseconds, too long for the event loop.
        self._searches = ThreadPoolExecutor(1, "lookup")
        self._handing_over = False
        self.announcer: Announcer | None = None
        self._placed_by = 0
        self._life = secrets.token_hex(8)

    async def Lookup(  # noqa: N802
        self, request: worker_pb2.LookupRequest, context: Context
    ) -> worker_pb2.LookupResponse:
        """See worker.proto. Finds what requests with the service's own guidance may start from."""
        with self.serving("Lookup", context):
            return await self._lookup(request, context)

    def serving(self, method: str, context: Context) -> AbstractContextManager[Span]:
        """The span of a call, within its caller's trace."""
        if not self.tracing.on:
            return nullcontext(INVALID_SPAN)
        name = f"gesso.v1.Worker/{method}"
        return self.tracing.serve(name, carrier_of(context.invocation_metadata()), rpc(name))

    async def _lookup(
        self, request: worker_pb2.LookupRequest, context: Context
    ) -> worker_pb2.LookupResponse:
        store = await self._opened(context)

        def find(query: Query) -> worker_pb2.Matches:
            asked = (query.tenant, store.fingerprint, query.embedding, query.limit)
            found = [*store.shard.lookup(*asked), *store.signposts.lookup(*asked)]
            found.sort(key=lambda m: -m.similarity)
            return worker_pb2.Matches(matches=map(_told, found[: query.limit]))

        def find_all() -> list[worker_pb2.Matches]:
            return [find(query) for query in queries]

        try:
            queries = check_lookup(request)
            answers = await asyncio.get_running_loop().run_in_executor(self._searches, find_all)
        except ValueError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return worker_pb2.LookupResponse(answers=answers)

    async def FetchLatents(  # noqa: N802
        self, request: worker_pb2.FetchLatentsRequest, context: Context
    ) -> worker_pb2.FetchLatentsResponse:
        """See worker.proto."""
        store = await self._opened(context)
        with self.serving("FetchLatents", context) as span:
            held = await fetch(store.shard, request.tenant, request.entry_id, request.skipped_steps)
            if held is None:
                failed(span, grpc.StatusCode.NOT_FOUND.name)
        if held is None:
            message = (
                f"no latents of entry {request.entry_id!r} at {request.skipped_steps} or below"
            )
            await abort(context, grpc.StatusCode.NOT_FOUND, message)
        return pack(held)

    async def HandOver(  # noqa: N802
        self, request: worker_pb2.HandOverRequest, context: Context
    ) -> worker_pb2.HandOverResponse:
        """See worker.proto."""
        store = await self._opened(context)
        try:
            addresses, timeout_s = check_hand_over(request, self.name)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if self._handing_over:
            await abort(
                context, grpc.StatusCode.FAILED_PRECONDITION, "a hand-over is under way already"
            )
        remaining = context.time_remaining()
        if remaining is not None:
            timeout_s = min(timeout_s, remaining)
        self._handing_over = True
        try:
            done = await hand_over(
                store.shard, store.fingerprint, store.peers, addresses, timeout_s
            )
        finally:
            self._handing_over = False
        return worker_pb2.HandOverResponse(
            entries=done.entries, bytes=done.size, skipped=done.skipped
        )

    async def StoreEntries(  # noqa: N802
        self, request: worker_pb2.StoreEntriesRequest, context: Context
    ) -> worker_pb2.StoreEntriesResponse:
        """See worker.proto."""
        store = await self._opened(context)
        if request.fingerprint != store.fingerprint:
            message = (
                f"fingerprint: {request.fingerprint!r} is not allowed: {store.fingerprint!r}, that "
                "of the latents held here"
            )
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)

        def take() -> list[bool]:
            entries = check_entries(request, store.ladder, store.shape)
            return [store.shard.store(store.fingerprint, e) for e in entries]

        try:
            stored = await asyncio.get_running_loop().run_in_executor(self._searches, take)
        except ValueError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return worker_pb2.StoreEntriesResponse(stored=stored, free_bytes=store.shard.free_bytes)

    async def Withdraw(  # noqa: N802
        self, request: worker_pb2.WithdrawRequest, context: Context
    ) -> worker_pb2.WithdrawResponse:
        """See worker.proto."""
        store = await self._opened(context)
        try:
            names = check_withdraw(request)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        went = [await asyncio.to_thread(store.shard.withdraw, name) for name in names]
        return worker_pb2.WithdrawResponse(latents=sum(went))

    async def Place(  # noqa: N802
        self, request: worker_pb2.PlaceRequest, context: Context
    ) -> worker_pb2.PlaceResponse:
        """See worker.proto."""
        store = await self._opened(context)
        if request.revision < self._placed_by:
            message = f"revision: {request.revision} is not allowed: at least {self._placed_by}"
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        try:
            placement, addresses = await asyncio.to_thread(check_place, request, self.name)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._placed_by = max(self._placed_by, request.revision)
        if self.announcer is None:
            self.announcer = Announcer(
                self.name, store.shard, store.signposts, store.fingerprint, store.peers
            )
        self.announcer.place(placement, addresses)
        return worker_pb2.PlaceResponse(placement=placement.version)

    async def Announce(  # noqa: N802
        self, request: worker_pb2.AnnounceRequest, context: Context
    ) -> worker_pb2.AnnounceResponse:
        """See worker.proto."""
        store = await self._opened(context)
        placement = self.announcer.placement if self.announcer is not None else None
        for field, told, here in (
            ("fingerprint", request.fingerprint, store.fingerprint),
            ("placement", request.placement, placement.version if placement is not None else ""),
        ):
            if told != here:
                message = f"{field}: {told!r} is not allowed: {here!r}, which is in force here"
                await abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        assert placement is not None

        def take() -> None:
            posts = check_announce(request, placement, store.ladder)
            store.signposts.keep(request.worker, store.fingerprint, posts)

        try:
            await asyncio.get_running_loop().run_in_executor(self._searches, take)
        except ValueError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return worker_pb2.AnnounceResponse(life=self._life)

    async def end(self) -> None:
        """Tells other workers nothing more."""
        if self.announcer is not None:
            await self.announcer.close()

    def close(self) -> None:
        """Ends the look-up thread."""
        self._searches.shutdown(wait=False, cancel_futures=True)

    async def _opened(self, context: Context) -> Store:
        if self.store is None:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "the worker is warming up")
        return self.store
