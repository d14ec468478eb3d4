"""What the router asks of workers, apart from how it reaches them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gesso.rpc.v1 import worker_pb2
from gesso_router.fleet import Endpoint
from gesso_router.routing.quality import Match, Vector


class WorkerFailedError(Exception):
    """A worker did not serve a request.

    `retryable`: another one might; `timed_out`: its time was up; `refused`: it let go of it, since it is about
    to go or holds another model; `kind`: one word for it.
    """

    def __init__(
        self,
        worker: str,
        message: str,
        *,
        retryable: bool,
        timed_out: bool = False,
        refused: bool = False,
        kind: str = "lost",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.worker = worker
        self.retryable = retryable
        self.refused = refused
        self.timed_out = timed_out


class Pool(Protocol):
    """What the router asks of workers; `WorkerPool` over the wire."""

    @property
    def unanswered_lookups(self) -> int:
        """Look-ups that a shard failed or did not answer in time, since the start."""

    @property
    def probed(self) -> int:
        """Shards that look-ups have asked, since the start."""

    async def lookup(
        self,
        tenant: str,
        embedding: Vector,
        workers: Sequence[Endpoint],
        timeout_seconds: float,
    ) -> list[Match]:
        """Nearest entries, best first; shards that do not answer in time count as empty."""

    async def generate(
        self,
        worker: str,
        request: worker_pb2.WorkerGenerateRequest,
        timeout_seconds: float,
        on_event: Callable[[worker_pb2.WorkerEvent], Awaitable[None]],
    ) -> worker_pb2.WorkerImage:
        """An image, or WorkerFailedError."""
