"""The router's fast loop: admit, embed, look up, predict, choose, dispatch, retry once, account.

Front doors call `Router.generate` with a well-formed job and an `emit` for the events; they get an
image or a RequestError. Cancelling the call cancels the work everywhere. Every job ends in exactly
one outcome of the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from gesso import logs
from gesso.api import DiffusionService
from gesso.plan import Plan
from gesso.rpc.v1 import image_pb2
from gesso.tracing import OFF, Tracing
from gesso_router import spans
from gesso_router.access.sharing import Sharing
from gesso_router.attempts import Attempts, tenant_of
from gesso_router.embedding import Embedder
from gesso_router.errors import Ending, RequestError
from gesso_router.feedback import Feedback, Verdict
from gesso_router.fleet import Fleet
from gesso_router.gate import ClipperGate
from gesso_router.ledger import Ledger, Outcome
from gesso_router.placing import Placer
from gesso_router.pool import Pool, WorkerFailedError
from gesso_router.prompts import Prompts
from gesso_router.routing.choose import ChoicePolicy
from gesso_router.routing.quality import QualityPredictor
from gesso_router.routing.view import FleetView
from gesso_router.run import (
    FULL,
    OUTCOMES,
    REFUSED_AT_ONCE,
    Emit,
    Run,
    texts_of,
    told,
    unheard,
    unserved,
)
from gesso_router.settings import RouterSettings
from gesso_router.validation import Job
from gesso_router.witness import Witness

log = logging.getLogger(__name__)

#: Workers that may fail a request once they have begun with it.
ATTEMPTS = 2
#: Workers that may fail it at all. What keeps workers from beginning may lie in the request itself: it is not
#: to take down a whole fleet.
MOST_FAILURES = 4
#: Workers that may send a request on, since they are about to go or hold another model by now.
REFUSALS = 8
#: A deadline of at least this share of the service's is as usual.
_USUAL = 0.9
_SHUTTING_DOWN = "the router is shutting down"


class Router:
    """One service's router; the workers and the plan come in by `fleet` and `plan`."""

    def __init__(
        self,
        service: DiffusionService,
        predictor: QualityPredictor,
        fleet: Fleet,
        pool: Pool,
        *,
        settings: RouterSettings | None = None,
        policy: ChoicePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        tracing: Tracing = OFF,
    ) -> None:
        """`clock` gives monotonic seconds, `draw` numbers uniform in [0, 1).

        `policy` replaces the constants of a policy that chooses by price. Set `embedder` before the
        first request, or it is refused.
        """
        self.service = service
        self.fleet = fleet
        self.settings = settings or RouterSettings()
        self.embedder: Embedder | None = None
        self.draining = False
        #: On the way out: still takes requests, but is not ready for more.
        self.leaving = False
        #: Whether requests may say at which K they are to be served.
        self.may_pin = False
        #: How tenants share the queue.
        self.sharing = Sharing()
        #: Told of every image that goes out.
        self.witnesses: list[Witness] = []
        self._pool = pool
        self._clock = clock
        self._tracing = tracing
        self._placer = Placer(service, predictor, fleet, self.settings, clock, policy, draw)
        self.ledger = Ledger(
            service.ladder,
            predictor.class_names,
            self.settings.latency_window,
            self.settings.latency_samples,
            others=len(self._placer.models.others),
        )
        self._prompts = Prompts(service, fleet, pool, self._placer, self.ledger, clock, tracing)
        self.feedback = Feedback(
            service.ladder, self.settings.quality_memory, self.settings.quality_memory_seconds
        )
        self._attempts = Attempts(
            service, fleet, pool, self._placer, self.feedback, self.witnesses, clock
        )

    @property
    def plan(self) -> Plan | None:
        """The plan in force."""
        return self._placer.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._placer.plan = plan

    def take_settings(
        self, latency_seconds: float, min_relative_quality: float, max_queue: int
    ) -> None:
        """Takes up what may change while it serves; requests that are under way keep what they came with."""
        spec = self.service.spec
        slo = spec.slo.model_copy(
            update={
                "latency_seconds": latency_seconds,
                "min_relative_quality": min_relative_quality,
            }
        )
        router = spec.router.model_copy(update={"max_queue": max_queue})
        if (slo, router) == (spec.slo, spec.router):
            return
        spec = spec.model_copy(update={"slo": slo, "router": router})
        self.service = self.service.model_copy(update={"spec": spec})
        self._placer.slo_seconds = latency_seconds
        log.info(
            "settings in force",
            extra={
                "latency_seconds": latency_seconds,
                "min_relative_quality": min_relative_quality,
                "max_queue": max_queue,
            },
        )

    @property
    def predictor(self) -> QualityPredictor:
        """What is known of quality now; it changes with what judges report."""
        return self._placer.predictor

    @property
    def policy(self) -> ChoicePolicy:
        """The constants of the choice by price."""
        return self._placer.price_policy

    @property
    def gate(self) -> ClipperGate:
        """Where prompts wait under a policy with one queue; empty under the others."""
        return self._placer.gate

    @property
    def needs_embedder(self) -> bool:
        """Whether the policy looks at prompts at all."""
        return self._placer.needs_prompt

    @property
    def unready_reason(self) -> str | None:
        """Why this router should be sent no request; None if it may."""
        return _SHUTTING_DOWN if self.leaving else self.refusal_reason

    @property
    def refusal_reason(self) -> str | None:
        """Why a request sent now would be refused as UNAVAILABLE; None if it would not."""
        if self.draining:
            return _SHUTTING_DOWN
        if self.embedder is None and self.needs_embedder:
            return "the router is starting: its embedding model is loading"
        if self.fleet.usable:
            return None
        known = len(self.fleet.endpoints)
        return f"none of {known} workers is ready" if known else "no plan has named a worker yet"

    @property
    def ready(self) -> bool:
        """Whether a request may be sent here: it would find a worker."""
        return self.unready_reason is None

    @property
    def unanswered_lookups(self) -> int:
        """Look-ups that a shard failed or did not answer in time."""
        return self._pool.unanswered_lookups

    @property
    def probed(self) -> int:
        """Shards that look-ups have asked."""
        return self._pool.probed

    def view(self) -> FleetView:
        """The fleet as choices are made on it, now."""
        return self._placer.view()

    def report_quality(self, request_id: str, relative_quality: float | None) -> Verdict:
        """Learns what a served image was worth. Raises RequestError (INVALID), UnknownRequestError."""
        after, verdict = self.feedback.reported(
            request_id, relative_quality, self.predictor, self._clock()
        )
        self._placer.predictor = after
        return verdict

    async def generate(
        self, job: Job, emit: Emit, time_remaining: float | None = None
    ) -> image_pb2.Image:
        """Serves a job. `time_remaining` is the client's own deadline, if it set one that is tighter.

        Raises RequestError; asyncio.CancelledError when the client went away.
        """
        logs.begin(logs.Subject(job.request_id, logs.subject().trace, texts_of(job)))
        with self._tracing.span(spans.IMAGE) as span:
            spans.asked(span, self.service, job)
            image = await self._accounted(job, emit, time_remaining)
            spans.made(span, image)
        return image

    async def _accounted(
        self, job: Job, emit: Emit, time_remaining: float | None
    ) -> image_pb2.Image:
        now = self._clock()
        slo = job.slo_seconds if time_remaining is None else min(job.slo_seconds, time_remaining)
        ticket = self.ledger.arrive(now, max(0.0, slo))
        most = self.service.spec.router.max_queue
        has_room = self.sharing.enter(job.owner, most, now)
        outcome = Outcome.FAILED
        try:
            options = self._placer.models.unseen if self.needs_embedder else FULL
            with self._tracing.span(spans.ADMIT):
                self._admit(most, has_room)
            heard = unheard if job.image_only else emit
            image = await self._serve(Run(job, ticket, heard, options=options))
            log.info("image", extra=told(image, self._clock() - now))
            return image
        except asyncio.CancelledError:
            # Who leaves after the deadline was not served in time.
            late = self._clock() > ticket.deadline_s
            outcome = Outcome.LATE if late else Outcome.CANCELLED
            log.info("no image", extra={"outcome": outcome.value, "reason": "cancelled"})
            raise
        except RequestError as error:
            outcome = OUTCOMES[error.ending]
            if error.reason in REFUSED_AT_ONCE:
                outcome = Outcome.SHED
            # A client's timeout of the service's own deadline is a little less by the time it is here.
            usual = slo >= _USUAL * self.service.spec.slo.latency_seconds
            if error.ending is Ending.SHED and usual and has_room:
                self.sharing.overloaded(self.ledger.open, self._clock())
            log.info(
                "no image",
                extra={
                    "prompt_hash": logs.prompt_hash(job.prompt),
                    "outcome": outcome.value,
                    "reason": error.reason,
                    "detail": error.message,
                },
            )
            raise
        finally:
            ticket.close(outcome)
            self.sharing.leave(job.owner, self._clock())

    async def _serve(self, run: Run) -> image_pb2.Image:
        if self.needs_embedder:
            assert self.embedder is not None
            self._placer.stop_at_the_door(run)
            self._placer.reading += 1
            try:
                await self._prompts.read(run, self.embedder, tenant_of(self.service, run.job))
            finally:
                self._placer.reading -= 1
        failed = 0
        while True:
            with self._tracing.span(spans.CHOOSE) as span:
                placement = await self._placer.place(run)
                spans.chosen(span, run, placement)
            if len(run.failed_on) > failed:
                failed = len(run.failed_on)
                self.ledger.retry()
            address = self.fleet.address(placement.worker) or ""
            try:
                with self._tracing.calling(spans.GENERATE_METHOD, address) as span:
                    spans.dispatched(span, run, placement)
                    return await self._attempts.make(run, placement)
            except WorkerFailedError as failure:
                run.failure = failure
                if failure.refused:
                    self.fleet.refused(placement.worker, placement.flight, self._clock())
                    if len(run.refused_by) < REFUSALS:
                        run.refused_by.append(placement.worker)
                        continue
                run.failed_on.append(placement.worker)
                if failure.retryable and self.fleet.failed(
                    placement.worker, placement.flight, self._clock()
                ):
                    log.warning("worker keeps failing", extra={"worker": placement.worker})
                if failure.timed_out:
                    raise RequestError(
                        Ending.DEADLINE, "deadline", "given up: its deadline is long past"
                    ) from None
                # Who is sent on for ever is as good as begun.
                run.begun += failure.refused or run.started_s is not None
                exhausted = run.begun >= ATTEMPTS or len(run.failed_on) >= MOST_FAILURES
                if exhausted or not failure.retryable:
                    raise unserved(run) from None
                log.warning(
                    "worker failed a request",
                    extra={"worker": placement.worker, "cause": str(failure)},
                )

    def _admit(self, most: int, has_room: bool) -> None:
        reason = self.refusal_reason
        if reason is not None:
            raise RequestError(
                Ending.UNAVAILABLE,
                "not-ready",
                reason,
                retry_after_seconds=self.settings.no_worker_retry_after,
            )
        if self.ledger.open > most:
            raise RequestError(
                Ending.SHED,
                "queue-full",
                f"{most} accepted requests are waiting for their images, the most that "
                "spec.router.maxQueue allows",
                retry_after_seconds=self.service.spec.slo.latency_seconds / 2,
            )
        if not has_room:
            raise RequestError(
                Ending.SHED,
                "fair-share",
                "this tenant's share of the queue is taken; the rest is for others who are asking",
                retry_after_seconds=self.service.spec.slo.latency_seconds / 2,
            )
