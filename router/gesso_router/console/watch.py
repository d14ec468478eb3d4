"""Fills the console's history and gallery from a running router."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gesso.api.fleet import ConsoleMode
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.attempts import begun_with
from gesso_router.console.gallery import Gallery, Picture, Source
from gesso_router.console.history import History, PlanNote, Reading
from gesso_router.core import Router
from gesso_router.ledger import Outcome
from gesso_router.routing.choose import fleet_backlog_seconds, fleet_price
from gesso_router.routing.view import FleetView
from gesso_router.run import Placement, Run
from gesso_router.validation import FORMATS

log = logging.getLogger(__name__)

#: Seconds between two readings.
INTERVAL = 1.0


class Watch:
    """What the console knows of one router; `run` reads it once a second until it is cancelled."""

    def __init__(
        self,
        router: Router,
        mode: ConsoleMode,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is the router's; `wall_clock` gives unix seconds."""
        self.router = router
        #: Of this process: numbers of points and pictures are its own.
        self.instance = secrets.token_hex(8)
        self.history = History()
        self.gallery = Gallery() if mode == "Full" else None
        self._clock = clock
        self._wall_clock = wall_clock
        router.may_pin = True
        router.witnesses.append(self)

    async def run(self) -> None:
        """Takes readings."""
        while True:
            try:
                self.read()
            except Exception:  # a console that fails must not end the router
                log.exception("the console's reading failed")
            await asyncio.sleep(INTERVAL)

    def read(self) -> None:
        """Takes one reading."""
        router, ledger, now = self.router, self.router.ledger, self._clock()
        view, plan = router.view(), router.plan
        p50, p95 = ledger.latency_percentiles(now, (0.5, 0.95))
        ended = ledger.ended
        self.history.add(
            Reading(
                at_s=self._wall_clock(),
                offered=ledger.offered,
                in_slo=ended[Outcome.SERVED_IN_SLO],
                late=ended[Outcome.LATE],
                shed=ended[Outcome.SHED],
                failed=ended[Outcome.FAILED],
                cache_hits=ledger.cache_hits,
                quality_sum=ledger.quality_sum,
                served_by_level=tuple(ledger.served_by_level.values()),
                open=ledger.open,
                waiting=self._waiting(view),
                backlog_seconds=fleet_backlog_seconds(view.workers),
                price=fleet_price(view, router.policy).value,
                workers_ready=len(view.workers),
                mix=dict(Counter(w.model or str(w.assigned_skipped_steps) for w in view.workers)),
                latency_p50=p50,
                latency_p95=p95,
            )
        )
        if plan is not None:
            self.history.note(
                PlanNote(
                    plan.revision,
                    plan.made_at_s,
                    plan.mix_text,
                    plan.price,
                    plan.reason,
                    plan.message,
                )
            )

    def _waiting(self, view: FleetView) -> int:
        """Requests that are queued at workers, or with no worker yet."""
        fleet = self.router.fleet
        sent = sum(fleet.in_flight(endpoint.name) for endpoint in fleet.endpoints)
        here = max(0, self.router.ledger.open - sent)
        return here + sum(len(worker.queued) for worker in view.workers)

    def served(
        self,
        run: Run,
        placement: Placement,
        made: worker_pb2.WorkerImage,
        image: image_pb2.Image,
    ) -> None:
        """An image went out; see gesso_router.witness."""
        if self.gallery is None:
            return
        self.gallery.hang(
            Picture(
                request_id=run.job.request_id,
                at_s=self._wall_clock(),
                prompt=run.job.prompt,
                data=image.data,
                media_type=f"image/{FORMATS[image.format]}",
                skipped_steps=image.skipped_steps,
                steps=self.router.service.spec.model.steps,
                quality=image.predicted_quality,
                similarity=image.similarity,
                worker=image.worker,
                model=image.model,
                seed=image.seed,
                queue_seconds=image.queue_seconds,
                generate_seconds=image.generate_seconds,
                source=source_of(run, placement, made),
                # One that kept no latents cannot be where others come from.
                embedding=run.embedding if run.kept else None,
                owner=run.job.owner,
            )
        )

    def state(
        self, sequence: int, picture: int, owner: str = "", instance: str = ""
    ) -> dict[str, Any]:
        """What the page shows an owner, with the points and own pictures that came after these numbers, or all
        of them where the numbers are those of another instance. Empty: of this one.
        """
        if instance and instance != self.instance:
            sequence = picture = 0
        router, now = self.router, self._clock()
        spec, gallery = router.service.spec, self.gallery
        return {
            "instance": self.instance,
            "service": {
                "name": router.service.name,
                "model": spec.model.source,
                "steps": spec.model.steps,
                "width": spec.model.width,
                "height": spec.model.height,
                "ladder": list(router.service.ladder),
                "slo_seconds": spec.slo.latency_seconds,
                "attainment": spec.slo.attainment,
                "min_quality": spec.slo.min_relative_quality,
                "policy": spec.scheduling.policy,
                "max_queue": spec.router.max_queue,
                "models": [v.name for v in spec.variants if v.model is not None],
                "routers": spec.router.replicas,
            },
            "ready": router.ready,
            "unready_reason": router.unready_reason,
            "now": round(self._wall_clock(), 3),
            "taken": self.history.taken,
            "points": self.history.since(sequence),
            "plans": [
                {
                    "revision": p.revision,
                    "at": round(p.made_at_s, 3),
                    "mix": p.mix,
                    "price": round(p.price, 5),
                    "reason": p.reason,
                    "message": p.message,
                    "times": p.times,
                }
                for p in self.history.plans
            ],
            "workers": [
                {
                    "name": w.name,
                    "model": w.model,
                    "device": w.profile.device,
                    "assigned": w.assigned_skipped_steps,
                    "active": len(w.active),
                    "queued": len(w.queued),
                    "max_batch": w.profile.max_batch,
                }
                for w in router.fleet.views(now)
            ],
            "workers_known": len(router.fleet.endpoints),
            "gallery": gallery is not None,
            "hung": gallery.hung if gallery is not None else 0,
            "pictures": gallery.since(picture, owner) if gallery is not None else [],
        }


def source_of(run: Run, placement: Placement, made: worker_pb2.WorkerImage) -> Source | None:
    """What an image started from; None at K = 0, and where it is not known."""
    match = begun_with(placement.option, run.matches, made)
    if match is not None:
        return Source(match.worker, match.entry_id, match.similarity, match.embedding)
    if made.HasField("source"):
        return Source(made.source.worker, made.source.entry_id, None)
    return None
