"""Plans and truths in, reports out: what operator and judges see of a router, apart from the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from gesso.rpc.v1 import router_pb2
from gesso_router.core import Router
from gesso_router.ledger import Outcome
from gesso_router.plan_store import PlanError, PlanStore, plan_of, read_plan, settings_of
from gesso_router.routing.choose import fleet_backlog_seconds
from gesso_router.validation import check_request_id, invalid
from gesso_router.workers import WorkerPool

log = logging.getLogger(__name__)

#: Requests in one call to withdraw what they left.
MOST_WITHDRAWN = 256


class StaleRevisionError(Exception):
    """A plan older than the one in force."""


class Control:
    """Applies plans to a router and its pool, one at a time, and reports its counters."""

    def __init__(
        self,
        router: Router,
        pool: WorkerPool,
        store: PlanStore,
        plan_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`plan_file` is a copy of the plan that somebody else keeps, read at start. `clock` is the router's;
        `wall_clock` gives unix seconds.
        """
        self._router = router
        self._pool = pool
        self._store = store
        self._plan_file = plan_file
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_s = clock()
        self._lock = asyncio.Lock()

    def restore(self) -> bool:
        """Takes the newest plan of the state directory and the plan file; False without a usable one."""
        found = []
        paths = [self._store.path] + ([self._plan_file] if self._plan_file else [])
        for path in paths:
            try:
                request = read_plan(path)
            except (PlanError, OSError) as error:
                log.warning(
                    "the saved plan is not usable; waiting for the operator",
                    extra={"cause": str(error)},
                )
                continue
            if request is not None:
                found.append(request)
        if not found:
            return False
        self._take(max(found, key=lambda r: r.plan.revision))
        return True

    async def apply(self, request: router_pb2.ApplyPlanRequest) -> int:
        """Puts a plan in force, saved first; returns its revision. The same plan again changes nothing.

        Raises PlanError on a malformed plan, StaleRevisionError on one of a lower revision, OSError
        if it cannot be saved (it is not in force then).
        """
        plan, _ = plan_of(request)
        settings_of(request)
        async with self._lock:
            known = self._router.plan
            if known is not None and plan.revision < known.revision:
                raise StaleRevisionError(
                    f"plan.revision: {plan.revision} is not allowed: at least {known.revision}, "
                    "the one in force"
                )
            await asyncio.to_thread(self._store.save, request)
            self._take(request)
        return plan.revision

    def _take(self, request: router_pb2.ApplyPlanRequest) -> None:
        plan, endpoints = plan_of(request)
        changed = self._router.plan is None or plan.revision != self._router.plan.revision
        self._router.plan = plan
        told = settings_of(request)
        if told is not None:
            self._router.take_settings(
                told.latency_seconds, told.min_relative_quality, told.max_queue
            )
        self._pool.apply(endpoints, plan.revision)
        if changed:
            log.info(
                "plan in force",
                extra={
                    "revision": plan.revision,
                    "mix": plan.mix_text,
                    "price": plan.price,
                    "workers": len(endpoints),
                    "reason": plan.reason,
                },
            )

    def report_quality(
        self, request: router_pb2.ReportQualityRequest
    ) -> router_pb2.ReportQualityResponse:
        """Passes on what an image was worth. Raises RequestError (INVALID), UnknownRequestError."""
        told = request.relative_quality if request.HasField("relative_quality") else None
        verdict = self._router.report_quality(request.request_id, told)
        return router_pb2.ReportQualityResponse(
            predicted_quality=verdict.predicted_quality, learned=verdict.learned
        )

    async def withdraw(
        self, request: router_pb2.WithdrawImagesRequest
    ) -> router_pb2.WithdrawImagesResponse:
        """Has every worker forget what requests left. Raises RequestError (INVALID)."""
        ids = list(request.request_ids)
        if not 1 <= len(ids) <= MOST_WITHDRAWN:
            raise invalid("request_ids", len(ids), f"1 to {MOST_WITHDRAWN} of them")
        for i, name in enumerate(ids):
            check_request_id(f"request_ids[{i}]", name)
        latents, unreached = await self._pool.withdraw(ids)
        log.info("withdrawn", extra={"requests": len(ids), "latents": latents})
        return router_pb2.WithdrawImagesResponse(latents=latents, unreached=unreached)

    def report(self) -> router_pb2.ReportResponse:
        """The counters, and where things stand now."""
        router, ledger, now = self._router, self._router.ledger, self._clock()
        ended = ledger.ended
        p50, p95 = ledger.latency_percentiles(now, (0.5, 0.95))
        views = router.fleet.views(now)
        return router_pb2.ReportResponse(
            at=self._wall_clock(),
            uptime_seconds=now - self._started_s,
            offered=ledger.offered,
            served_in_slo=ended[Outcome.SERVED_IN_SLO],
            late=ended[Outcome.LATE],
            shed=ended[Outcome.SHED],
            failed=ended[Outcome.FAILED],
            cancelled=ended[Outcome.CANCELLED],
            invalid=ended[Outcome.INVALID],
            retried=ledger.retried,
            cache_hits=ledger.cache_hits,
            predicted_quality_sum=ledger.quality_sum,
            skipped_steps_sum=ledger.skipped_steps_sum,
            skipped_steps=ledger.ladder,
            served_by_level=[ledger.served_by_level[k] for k in ledger.ladder],
            optimal_by_level=[ledger.optimal_by_level[k] for k in ledger.ladder],
            classes=[
                router_pb2.PromptClass(
                    name=name, arrivals=tally.arrivals, quality=ledger.mean_quality(name)
                )
                for name, tally in ledger.classes.items()
            ],
            backlog_seconds=fleet_backlog_seconds(views),
            latency_p50_seconds=p50,
            latency_p95_seconds=p95,
            plan_revision=router.plan.revision if router.plan else 0,
            workers_ready=len(router.fleet.usable),
            queued=ledger.open,
        )
