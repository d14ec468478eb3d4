"""One attempt of a request on a worker: what is asked of it, what is told meanwhile, what its image teaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gesso.api import DiffusionService
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router import messages
from gesso_router.feedback import Feedback, Shown
from gesso_router.fleet import Fleet
from gesso_router.ledger import Served
from gesso_router.placing import Placer
from gesso_router.pool import Pool
from gesso_router.routing.keep import keep_latents
from gesso_router.routing.quality import Match, Option, quality_at, stand_ins
from gesso_router.run import Placement, Run
from gesso_router.validation import Job
from gesso_router.witness import Witness


def tenant_of(service: DiffusionService, job: Job) -> str:
    """Whose latents a job may start from, and leaves its own to."""
    return job.tenant if service.spec.cache.isolation == "Tenant" else ""


def begun_with(
    option: Option, matches: Sequence[Match], made: worker_pb2.WorkerImage
) -> Match | None:
    """The entry that an image started from: what the worker tells, or else what it was told to take if the K is
    that asked for. None at K = 0, and where the entry is none of the `matches`.
    """
    if made.HasField("source"):
        told = (made.source.worker, made.source.entry_id)
        return next((m for m in matches if (m.worker, m.entry_id) == told), None)
    # A worker that used another K than asked for may have begun with other latents.
    return option.match if made.skipped_steps == option.skipped_steps else None


class Attempts:
    """Of one service; `witnesses` are told of every image that goes out."""

    def __init__(
        self,
        service: DiffusionService,
        fleet: Fleet,
        pool: Pool,
        placer: Placer,
        feedback: Feedback,
        witnesses: Sequence[Witness],
        clock: Callable[[], float],
    ) -> None:
        """Of the service it uses what does not change while it serves."""
        self._service = service
        self._fleet = fleet
        self._pool = pool
        self._placer = placer
        self._feedback = feedback
        self._witnesses = witnesses
        self._clock = clock

    async def make(self, run: Run, placement: Placement) -> image_pb2.Image:
        """The image of a run that was placed. Raises WorkerFailedError."""
        job, flight, worker = run.job, placement.flight, placement.worker
        steps = self._placer.models.steps[placement.option.model]
        run.started_s = None

        async def on_event(event: worker_pb2.WorkerEvent) -> None:
            at = self._clock()
            if event.WhichOneof("event") == "started":
                run.started_s = at
                self._fleet.started(worker, flight, steps - event.started.skipped_steps, at)
                await run.emit(
                    messages.started(job.request_id, worker, event.started.skipped_steps)
                )
            else:
                self._fleet.progressed(worker, flight, steps - event.progress.step, at)
                await run.emit(messages.progress(job.request_id, event.progress))

        try:
            if placement.choice is not None:
                await run.emit(messages.queued(job.request_id, placement.choice.start_seconds))
            made = await self._pool.generate(
                worker,
                self._request(run, placement),
                max(0.0, self._placer.give_up_s(run) - self._clock()),
                on_event,
            )
        finally:
            now = self._clock()
            self._placer.ended(placement, now)
        self._placer.learn(run, placement, made, now)
        quality = quality_at(
            self._placer.predictor, placement.option, made.skipped_steps, run.embedding
        )
        run.ticket.served(now, Served(made.skipped_steps, quality))
        option = placement.option
        match = begun_with(option, run.matches, made)
        shown = Shown(made.skipped_steps, quality, match, run.embedding)
        self._feedback.served(job.request_id, shown, now)
        started_s = flight.sent_s + made.queue_seconds if run.started_s is None else run.started_s
        image = messages.image(
            run.job,
            made,
            worker=worker,
            similarity=run.matches[0].similarity if run.matches else 0.0,
            quality=quality,
            queue_seconds=started_s - run.ticket.arrived_s,
            generate_seconds=now - started_s,
            attempts=run.attempt,
            model=option.model,
        )
        for witness in self._witnesses:
            witness.served(run, placement, made, image)
        return image

    def _request(self, run: Run, placement: Placement) -> worker_pb2.WorkerGenerateRequest:
        option, match = placement.option, placement.option.match
        others = stand_ins(self._placer.predictor, option, run.matches, run.embedding)
        wanted = run.job.skipped_steps is None and not option.model
        run.kept = (
            run.embedding is not None
            and wanted
            and keep_latents(
                option.skipped_steps,
                option.quality,
                self._service.spec.model.steps,
                run.matches,
                self._service.ladder,
            )
        )
        return messages.worker_request(
            run.job,
            placement.flight.request_id,
            tenant_of(self._service, run.job),
            option,
            self._placer.models.steps[option.model],
            self._address(match, placement.worker) or "",
            run.embedding,
            run.kept,
            [
                (m, address)
                for m in others
                if m.worker not in run.failed_on
                and (address := self._address(m, placement.worker)) is not None
            ],
        )

    def _address(self, match: Match | None, worker: str) -> str | None:
        """Where a match lies, as seen from a worker: empty if there; None if its holder is gone."""
        if match is None or match.worker == worker:
            return ""
        return self._fleet.address(match.worker)
