"""The connections to workers: polls their Stats, asks their shards, runs requests on them.

Every call has a deadline. A worker that misses several polls, or refuses a connection, counts as
lost: its calls are ended at once so that their requests can go elsewhere, and nothing new is sent
until it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from gesso import logs
from gesso.codebook import to_bytes
from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.tls import Tls, open_channel
from gesso.tracing import OFF, Tracing, failed
from gesso.vectors import packed, unpacked
from gesso_router.fleet import CacheReport, Endpoint, Fleet, WorkerReport
from gesso_router.lookups import Call, Lookups, Metadata
from gesso_router.pool import WorkerFailedError
from gesso_router.probes import Probes
from gesso_router.routing.door import AT_ONCE_SECONDS
from gesso_router.routing.quality import Match, Vector
from gesso_router.settings import RouterSettings
from gesso_router.spans import LOOKUP_METHOD

log = logging.getLogger(__name__)

_CHANNEL_OPTIONS = (
    # A worker that comes back on its old port is found within a second, not after gRPC's two
    # minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
)
#: Statuses that say nothing about the request itself: another worker may serve it.
_RETRYABLE = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}


@dataclass
class _Link:
    channel: grpc.aio.Channel
    stub: Any
    lookups: Lookups
    tls_version: int = 0
    poller: asyncio.Task[None] | None = None
    calls: set[Any] = field(default_factory=set)
    placing: asyncio.Task[None] | None = None


class WorkerPool:
    """The links to the workers of the plan in force."""

    def __init__(
        self,
        fleet: Fleet,
        settings: RouterSettings,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[], None] = lambda: None,
        tls: Tls | None = None,
        tracing: Tracing = OFF,
    ) -> None:
        """`on_change` is called after every report and loss: who waits for a worker may look again.

        With `tls`, links are opened anew when its files have changed.
        """
        self._tls = tls
        self._tracing = tracing
        self._fleet = fleet
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self.unanswered_lookups = 0
        #: Shards that look-ups have asked.
        self.probed = 0
        self.probes = Probes()
        self._revision = 0
        self._links: dict[str, _Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def apply(self, endpoints: Sequence[Endpoint], revision: int = 0) -> None:
        """Takes the workers of a plan of a revision. Requests on workers that went are let finish."""
        self.probes.apply(e.name for e in endpoints)
        self._revision = revision
        came, went = self._fleet.apply(endpoints)
        for name in went:
            if link := self._links.pop(name, None):
                self._retire(link)
        for i, name in enumerate(came):
            self._open(name, phase=i / len(came))

    def _open(self, name: str, phase: float = 0.0) -> None:
        """`phase` of the polls, 0 to 1: all workers' answers at once would hold up requests."""
        address = self._fleet.address(name)
        assert address is not None
        version = self._tls.refresh() if self._tls is not None else 0
        channel = open_channel(self._tls, address, _CHANNEL_OPTIONS)
        stub: Any = worker_pb2_grpc.WorkerStub(channel)
        link = _Link(channel, stub, Lookups(_look_up_by(stub)), version)
        self._links[name] = link
        link.poller = asyncio.create_task(self._polled(name, link, phase), name=f"stats {name}")

    async def close(self) -> None:
        """Ends every poll and call."""
        for link in self._links.values():
            self._retire(link, grace=0.0)
        self._links.clear()
        while self._closing:
            await asyncio.wait(self._closing, timeout=2.0)

    async def lookup(
        self,
        tenant: str,
        embedding: Vector,
        workers: Sequence[Endpoint],
        timeout_seconds: float,
    ) -> list[Match]:
        """See Pool."""
        asked = self.probes.asked(embedding, workers)
        links = [(e, self._links[e.name]) for e in asked if e.name in self._links]
        if not links:
            return []
        self.probed += len(links)
        # Who is asked for others, too, tells as many of theirs.
        limit = self._settings.lookup_limit * (1 if len(asked) == len(workers) else 2)
        query = worker_pb2.LookupQuery(tenant=tenant, embedding=packed(embedding), limit=limit)
        if self._tracing.on:
            answers = await asyncio.gather(
                *(self._traced(endpoint, link, query, timeout_seconds) for endpoint, link in links)
            )
        else:
            asked_now = [link.lookups.ask(query, timeout_seconds) for _, link in links]
            answers = [await answer for answer in asked_now]
        # One that was cut short so that a refusal comes at once says nothing of the shard.
        if timeout_seconds > AT_ONCE_SECONDS:
            self.unanswered_lookups += answers.count(None)
        reachable = {e.name for e in workers}
        matches: dict[tuple[str, str], Match] = {}
        for (endpoint, _), answer in zip(links, answers, strict=True):
            name = endpoint.name
            for m in answer.matches if answer is not None else ():
                key = (m.worker or name, m.entry_id)
                # What its holder says of an entry is newer than what others know.
                if key[0] in reachable and (not m.worker or key not in matches):
                    levels = tuple(m.held_levels)
                    matches[key] = Match(
                        m.entry_id, key[0], m.similarity, levels, _vector(m.embedding)
                    )
        return sorted(matches.values(), key=lambda m: -m.similarity)

    async def _traced(
        self,
        endpoint: Endpoint,
        link: _Link,
        query: worker_pb2.LookupQuery,
        timeout_seconds: float,
    ) -> worker_pb2.Matches | None:
        with self._tracing.calling(LOOKUP_METHOD, endpoint.address) as span:
            metadata = self._tracing.metadata()
            answer = await link.lookups.ask(query, timeout_seconds, metadata)
            if answer is None:
                failed(span, "no-answer")
            elif span.is_recording():
                span.set_attributes(
                    {"gesso.worker": endpoint.name, "gesso.matches": len(answer.matches)}
                )
        return answer

    async def generate(
        self,
        worker: str,
        request: worker_pb2.WorkerGenerateRequest,
        timeout_seconds: float,
        on_event: Callable[[worker_pb2.WorkerEvent], Awaitable[None]],
    ) -> worker_pb2.WorkerImage:
        """Runs a request on a worker; `on_event` gets Started and Progress. Raises WorkerFailedError.

        Cancelling the caller cancels the call, which frees the worker's slot at its next step.
        """
        link = self._links.get(worker)
        if link is None:
            raise WorkerFailedError(worker, "the plan no longer names it", retryable=True)
        metadata = (("x-request-id", logs.subject().request), *self._tracing.metadata())
        call = link.stub.Generate(request, timeout=timeout_seconds, metadata=metadata)
        link.calls.add(call)
        try:
            # Not `async for`: an iterator that is left early keeps the image until garbage is collected.
            while (event := await call.read()) is not grpc.aio.EOF:
                if event.WhichOneof("event") == "image":
                    image: worker_pb2.WorkerImage = event.image
                    return image
                await on_event(event)
        except grpc.aio.AioRpcError as error:
            raise self._failure(worker, link, error) from None
        except asyncio.CancelledError:
            # A call that was ended because its worker was lost raises the same as our own
            # cancellation.
            task = asyncio.current_task()
            if call in link.calls or (task is not None and task.cancelling()):
                raise
            raise WorkerFailedError(worker, "it stopped answering", retryable=True) from None
        finally:
            link.calls.discard(call)
            call.cancel()
        raise WorkerFailedError(worker, "it ended without an image", retryable=True)

    async def withdraw(self, request_ids: Sequence[str]) -> tuple[int, list[str]]:
        """Has every worker forget what requests left: how many latents went, and who did not answer."""
        request = worker_pb2.WithdrawRequest(request_ids=request_ids)
        links = list(self._links.items())
        timeout = self._settings.withdraw_timeout
        answers = await asyncio.gather(
            *(_withdrawn(link.stub.Withdraw(request, timeout=timeout)) for _, link in links)
        )
        unreached = [name for (name, _), a in zip(links, answers, strict=True) if a is None]
        return sum(a or 0 for a in answers), unreached

    def _failure(self, worker: str, link: _Link, error: grpc.aio.AioRpcError) -> WorkerFailedError:
        code = error.code()
        # A link that was replaced tells of where the worker was, not of where it is.
        gone = code is grpc.StatusCode.UNAVAILABLE and self._links.get(worker) is link
        if gone and self._fleet.lost(worker, self._clock()):
            log.warning("worker lost", extra={"worker": worker, "cause": error.details()})
            self._on_change()
        details = error.details() or "no details"
        return WorkerFailedError(
            worker,
            f"{code.name}: {details}",
            retryable=code in _RETRYABLE,
            refused=code is grpc.StatusCode.ABORTED,
            kind=code.name,
            timed_out=code is grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    async def _polled(self, name: str, link: _Link, phase: float) -> None:
        """Polls on after whatever goes wrong: without polls, a worker is taken for what it last was."""
        told = ""
        while True:
            try:
                await self._poll(name, link, phase)
            except Exception as error:
                self._fleet.missed(name)
                if told != (told := repr(error)):
                    log.exception("a poll failed", extra={"worker": name})
                await asyncio.sleep(self._settings.stats_interval)

    async def _poll(self, name: str, link: _Link, phase: float) -> None:
        settings = self._settings
        later = phase * settings.stats_interval
        while True:
            asked = self._clock()
            try:
                answer = await link.stub.Stats(
                    worker_pb2.StatsRequest(), timeout=settings.stats_timeout, wait_for_ready=False
                )
            except grpc.aio.AioRpcError as error:
                gone = error.code() is grpc.StatusCode.UNAVAILABLE
                if self._fleet.lost(name, self._clock()) if gone else self._fleet.missed(name):
                    log.warning("worker lost", extra={"worker": name, "cause": error.code().name})
                    self._end_calls(link)
                    self._on_change()
            else:
                if answer.stalled:
                    # The process answers, its device does not: nothing that waits for it comes to an end.
                    if self._fleet.lost(name, self._clock()):
                        log.warning("worker lost", extra={"worker": name, "cause": "STALLED"})
                        self._end_calls(link)
                        self._on_change()
                else:
                    self._take(name, answer, asked)
                if self.probes.behind(name) and (link.placing is None or link.placing.done()):
                    link.placing = asyncio.create_task(self._place(name, link), name="place")
            rest = settings.stats_interval + later - (self._clock() - asked)
            later = 0.0
            await asyncio.sleep(max(0.02, rest))
            if self._tls is not None and self._tls.refresh() != link.tls_version:
                # A channel keeps the certificates that it was opened with; its requests are let finish.
                self._open(name)
                self._retire(link)

    def _take(self, name: str, answer: worker_pb2.StatsResponse, asked: float) -> None:
        try:
            report = report_of(answer)
        except ValueError as error:
            log.warning("worker reports a bad profile", extra={"worker": name, "cause": str(error)})
            report = WorkerReport(ready=False, draining=answer.draining, profile=None)
        self.probes.reported(name, answer.placement, answer.unannounced)
        self._fleet.reported(name, report, asked)
        self._on_change()

    async def _place(self, name: str, link: _Link) -> None:
        """Tells a worker who the workers are, and the cells; it is tried again while it is behind."""
        assert self.probes.codebook is not None
        request = worker_pb2.PlaceRequest(
            workers=[
                worker_pb2.Peer(name=e.name, address=e.address) for e in self._fleet.endpoints
            ],
            codebook=to_bytes(self.probes.codebook),
            revision=self._revision,
        )
        try:
            await link.stub.Place(request, timeout=self._settings.place_timeout)
        except grpc.aio.AioRpcError as error:
            log.debug("not placed", extra={"worker": name, "cause": error.code().name})
            await asyncio.sleep(self._settings.place_timeout)

    @staticmethod
    def _end_calls(link: _Link) -> None:
        calls, link.calls = link.calls, set()
        for call in calls:
            call.cancel()

    def _retire(self, link: _Link, grace: float | None = None) -> None:
        for task in (link.poller, link.placing):
            if task:
                task.cancel()
        link.lookups.close()
        # No longer than a request may take.
        seconds = 2 * 3600.0 if grace is None else grace
        task = asyncio.create_task(_close(link, seconds))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(link: _Link, grace: float) -> None:
    if link.poller:
        with contextlib.suppress(asyncio.CancelledError):
            await link.poller
    await link.channel.close(grace if link.calls else None)


def _look_up_by(stub: Any) -> Call:
    async def call(
        request: worker_pb2.LookupRequest, timeout_seconds: float, metadata: Metadata
    ) -> worker_pb2.LookupResponse | None:
        try:
            answer: worker_pb2.LookupResponse = await stub.Lookup(
                request, timeout=timeout_seconds, metadata=metadata
            )
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):  # the second: its channel was closed
            return None
        return answer

    return call


def _vector(data: bytes) -> Vector | None:
    """An embedding from the wire; None where a worker does not tell it."""
    return unpacked(data) if data else None


async def _withdrawn(call: Any) -> int | None:
    try:
        return int((await call).latents)
    except grpc.aio.AioRpcError:
        return None


def report_of(stats: worker_pb2.StatsResponse) -> WorkerReport:
    """A worker's report from the wire. Raises ValueError on a profile that cannot be."""
    measured = stats.profile
    profile = None
    if measured.step_seconds:
        profile = Profile(
            device=measured.device,
            steps=measured.steps,
            encode_seconds=measured.encode_seconds,
            decode_seconds=measured.decode_seconds,
            step_seconds=tuple(measured.step_seconds),
        )
    return WorkerReport(
        ready=stats.ready,
        draining=stats.draining,
        profile=profile,
        active=tuple((r.request_id, r.remaining_steps) for r in stats.active),
        queued=tuple((r.request_id, r.remaining_steps) for r in stats.queued),
        fingerprint=stats.fingerprint,
        model=stats.model,
        cache=CacheReport(
            entries=stats.cache_entries,
            memory_bytes=stats.cache_bytes,
            disk_bytes=stats.cache_disk_bytes,
            corrupt=stats.cache_disk_corrupt,
            unwritten=stats.cache_disk_unwritten,
            failed=stats.cache_disk_failed,
        ),
    )
