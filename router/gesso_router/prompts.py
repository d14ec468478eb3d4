"""Reads a prompt: its embedding, the nearest entries of all shards, how it may be served, and its class."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gesso.api import DiffusionService
from gesso.tracing import OFF, Tracing, failed
from gesso_router.embedding import Embedder, Vector
from gesso_router.fleet import Fleet
from gesso_router.ledger import Ledger
from gesso_router.placing import Placer
from gesso_router.pool import Pool
from gesso_router.routing.baselines.nirvana import optimal_k
from gesso_router.routing.quality import planning_curve
from gesso_router.run import Run
from gesso_router.spans import EMBED, LOOKUP
from gesso_router.validation import Job

log = logging.getLogger(__name__)


class Prompts:
    """Of one service."""

    def __init__(
        self,
        service: DiffusionService,
        fleet: Fleet,
        pool: Pool,
        placer: Placer,
        ledger: Ledger,
        clock: Callable[[], float],
        tracing: Tracing = OFF,
    ) -> None:
        """`placer` says what options there are, `ledger` counts classes."""
        self._model = service.spec.model
        self._ladder = service.ladder
        self._fleet = fleet
        self._pool = pool
        self._placer = placer
        self._settings = placer.settings
        self._ledger = ledger
        self._clock = clock
        self._tracing = tracing

    async def read(self, run: Run, embedder: Embedder, tenant: str) -> None:
        """Fills in embedding, matches and options; a prompt whose entry would mislead others has none.

        Raises RequestError where it names a K that is not possible; it counts for no class then.
        """
        job, settings = run.job, self._settings
        # Latents belong to one guidance scale, and a negative prompt is not part of the embedding.
        plain = not job.negative_prompt and job.guidance_scale in (
            None,
            self._model.guidance_scale,
        )
        began = self._clock()
        if plain:
            with self._tracing.span(EMBED) as span:
                run.embedding = await self._embed(job, embedder)
                if run.embedding is None:
                    failed(span, "no-embedding")
        if run.embedding is not None:
            embedded = self._clock()
            run.embed_seconds = embedded - began
            left = run.ticket.deadline_s - embedded
            usual = min(settings.lookup_longest, max(0.0, settings.lookup_share * left))
            with self._tracing.span(LOOKUP):
                run.matches = await self._pool.lookup(
                    tenant,
                    run.embedding,
                    self._fleet.reachable,
                    self._placer.refusals.reading_seconds(usual, embedded - run.ticket.arrived_s),
                )
            run.lookup_seconds = self._clock() - embedded
            run.options = self._placer.options(run.matches, run.embedding)
        run.check_level()
        nearest, predictor = run.matches[0] if run.matches else None, self._placer.predictor
        self._ledger.classify(
            predictor.prompt_class(
                nearest.similarity if nearest else None,
                run.embedding,
                nearest.embedding if nearest else None,
            ),
            planning_curve([o for o in run.options if not o.model], predictor.ladder),
            optimal_k(nearest.similarity if nearest else -1.0, self._ladder, self._model.steps),
            [o.quality for o in run.options if o.model],
        )
        self._placer.seen(run)

    async def _embed(self, job: Job, embedder: Embedder) -> Vector | None:
        try:
            async with asyncio.timeout(self._settings.embed_timeout):
                return await embedder.embed(job.prompt)
        except Exception as error:  # without an embedding the prompt is served in full
            log.warning("no embedding", extra={"cause": repr(error)})
            return None
