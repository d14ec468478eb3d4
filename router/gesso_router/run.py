"""One request on its way through the router, and what its ending means to client and accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gesso.rpc.v1 import image_pb2
from gesso_router.embedding import Vector
from gesso_router.errors import Ending, RequestError
from gesso_router.fleet import Flight
from gesso_router.ledger import Outcome, Ticket
from gesso_router.pool import WorkerFailedError
from gesso_router.routing.choose import Choice, Refusal
from gesso_router.routing.quality import Match, Option
from gesso_router.validation import Job

Emit = Callable[[image_pb2.GenerateEvent], Awaitable[None]]
FULL = (Option(0, 1.0),)


async def unheard(event: image_pb2.GenerateEvent) -> None:
    """Emits to a client that is answered once, with the image."""


@dataclass
class Run:
    """One request on its way; attempts add to it."""

    job: Job
    ticket: Ticket
    emit: Emit
    embedding: Vector | None = None
    matches: list[Match] = field(default_factory=list)
    options: tuple[Option, ...] = FULL
    failed_on: list[str] = field(default_factory=list)
    #: How many of these had taken its first step.
    begun: int = 0
    #: Workers that let go of it: they were about to go, or held another model.
    refused_by: list[str] = field(default_factory=list)
    failure: WorkerFailedError | None = None
    started_s: float | None = None
    #: Whether its latents are to be kept for others.
    kept: bool = False
    embed_seconds: float = 0.0
    lookup_seconds: float = 0.0

    @property
    def allowed(self) -> tuple[Option, ...]:
        """The options that it may be served by: those at its own K, where it names one.

        Raises RequestError: INVALID where no latent allows that K, UNAVAILABLE where its holder failed.
        """
        pinned = self.job.skipped_steps
        if pinned is None:
            return self.options
        found = tuple(o for o in self.options if o.skipped_steps == pinned and not o.model)
        if not found and self.failed_on:
            raise unserved(self)
        if not found:
            raise RequestError(
                Ending.INVALID,
                "no-latent",
                f"skipped_steps: {pinned} is not possible now: no similar prompt has left a latent at "
                "this step",
                param="skipped_steps",
            )
        return found

    def check_level(self) -> None:
        """Raises RequestError where it names a K that is not possible, as `allowed` does."""
        _ = self.allowed

    @property
    def min_quality(self) -> float:
        """The floor that holds for it: none where it names its K itself."""
        return self.job.min_quality if self.job.skipped_steps is None else 0.0

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1; workers that sent it on do not count."""
        return len(self.failed_on) + 1

    @property
    def tried(self) -> frozenset[str]:
        """Workers that it does not go to again."""
        return frozenset((*self.failed_on, *self.refused_by))


@dataclass(frozen=True)
class Placement:
    """An attempt, booked: worker, K and source, the choice behind it (None: Clipper), the flight."""

    worker: str
    option: Option
    choice: Choice | None
    flight: Flight


OUTCOMES = {
    Ending.INVALID: Outcome.INVALID,
    Ending.UNKNOWN_CALLER: Outcome.SHED,
    Ending.FORBIDDEN: Outcome.SHED,
    Ending.CONFLICT: Outcome.SHED,
    Ending.SHED: Outcome.SHED,
    Ending.UNAVAILABLE: Outcome.FAILED,
    Ending.DEADLINE: Outcome.LATE,
}


#: Nothing was tried: shed in the accounts, whatever the client is told.
REFUSED_AT_ONCE = {"no-worker", "not-ready"}


def texts_of(job: Job) -> tuple[str, ...]:
    """What of a request is kept out of logs."""
    return tuple(text for text in (job.prompt, job.negative_prompt) if text)


def told(image: image_pb2.Image, seconds: float) -> dict[str, str | float]:
    """What is logged of an image that was made in so many seconds."""
    return {
        "worker": image.worker,
        "skipped_steps": image.skipped_steps,
        "similarity": round(image.similarity, 4),
        "quality": round(image.predicted_quality, 4),
        "queue_seconds": round(image.queue_seconds, 4),
        "seconds": round(seconds, 4),
        "attempts": image.attempts,
    }


def refused(refusal: Refusal) -> RequestError:
    """What the client is told when no worker and K would do."""
    ending = Ending.UNAVAILABLE if refusal.reason == "no-worker" else Ending.SHED
    return RequestError(
        ending, refusal.reason, refusal.message, retry_after_seconds=refusal.retry_after_seconds
    )


def unserved(run: Run) -> RequestError:
    """What the client is told when every attempt failed."""
    tried = ", ".join((*run.failed_on, *run.refused_by))
    return RequestError(
        Ending.UNAVAILABLE,
        "worker-failed",
        f"no worker could serve it: tried {tried} ({run.failure})",
    )
