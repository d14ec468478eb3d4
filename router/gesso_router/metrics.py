"""Prometheus metrics `gesso_router_*` of gesso.metrics.catalogue, read off the router when scraped.

Serving pays next to nothing for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gesso.metrics.families import counter, gauge, histogram
from gesso_router.core import Router
from gesso_router.feedback import ErrorTally
from gesso_router.fleet import CacheReport
from gesso_router.ledger import Ledger
from gesso_router.routing.choose import fleet_backlog_seconds, fleet_price
from gesso_router.tallies import Tallies


class RouterCollector(Collector):
    """Turns a router's state into metric families."""

    def __init__(self, router: Router, clock: Callable[[], float] = time.monotonic) -> None:
        """Is a witness of its images from now on."""
        self._router = router
        self._clock = clock
        self._tallies = Tallies()
        router.witnesses.append(self._tallies)

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        router, now = self._router, self._clock()
        yield from _ledger(router.ledger, now)
        yield counter("gesso_router_unanswered_lookups", router.unanswered_lookups)
        yield counter("gesso_router_probed_shards", router.probed)
        yield from _images(self._tallies, router.service.spec.scheduling.policy)
        yield from _quality_errors(router.feedback.tallies)
        yield from self._now(now)

    def _now(self, now: float) -> Iterable[Metric]:
        router, plan = self._router, self._router.plan
        view = router.view()
        yield gauge("gesso_router_workers_ready", len(view.workers))
        yield gauge("gesso_router_workers_known", len(router.fleet.endpoints))
        yield counter("gesso_router_workers_lost", router.fleet.losses)
        yield gauge("gesso_router_backlog_seconds", fleet_backlog_seconds(view.workers))
        yield gauge("gesso_router_price", fleet_price(view, router.policy).value)
        yield gauge("gesso_router_plan_revision", plan.revision if plan else 0)
        yield gauge("gesso_router_plan_made_seconds", plan.made_at_s if plan else 0)
        floor = router.service.spec.slo.min_relative_quality
        yield gauge("gesso_router_min_relative_quality", floor)
        yield gauge("gesso_router_estimate_margin", view.margin)
        load = {
            (worker.name, state): float(len(requests))
            for worker in view.workers
            for state, requests in (("active", worker.active), ("queued", worker.queued))
        }
        yield gauge("gesso_router_worker_requests", load)
        barred = {
            (worker,): float(is_barred) for worker, is_barred in router.fleet.barred(now).items()
        }
        yield gauge("gesso_router_worker_barred", barred)
        yield from _caches(router.fleet.caches())


def registry_of(router: Router) -> CollectorRegistry:
    """A registry of its own with a router's metrics."""
    registry = CollectorRegistry()
    registry.register(RouterCollector(router))
    return registry


def _ledger(ledger: Ledger, now: float) -> Iterable[Metric]:
    yield counter("gesso_router_offered_requests", ledger.offered)
    yield counter("gesso_router_requests", {(o.value,): n for o, n in ledger.ended.items()})
    yield counter("gesso_router_images", {(str(k),): n for k, n in ledger.served_by_level.items()})
    arrivals = {(name,): tally.arrivals for name, tally in ledger.classes.items()}
    yield counter("gesso_router_prompts", arrivals)
    yield counter("gesso_router_retries", ledger.retried)
    yield counter("gesso_router_cache_hits", ledger.cache_hits)
    yield counter("gesso_router_predicted_quality_sum", ledger.quality_sum)
    p50, p95 = ledger.latency_percentiles(now, (0.5, 0.95))
    yield gauge("gesso_router_latency_seconds", {("0.5",): p50, ("0.95",): p95})
    yield gauge("gesso_router_open_requests", ledger.open)


def _caches(caches: Mapping[str, CacheReport]) -> Iterable[Metric]:
    """By worker: what its shard holds, and what went wrong on its disk."""
    entries = {(worker,): float(cache.entries) for worker, cache in caches.items()}
    yield gauge("gesso_router_worker_cache_entries", entries)
    sizes: dict[tuple[str, str], float] = {}
    faults: dict[tuple[str, str], float] = {}
    for worker, cache in caches.items():
        sizes |= {(worker, "memory"): cache.memory_bytes, (worker, "disk"): cache.disk_bytes}
        for fault in ("corrupt", "unwritten", "failed"):
            faults[worker, fault] = getattr(cache, fault)
    yield gauge("gesso_router_worker_cache_bytes", sizes)
    yield counter("gesso_router_worker_cache_faults", faults)


def _images(tallies: Tallies, policy: str) -> Iterable[Metric]:
    images = {(outcome, str(k), policy): n for (outcome, k), n in tallies.images.items()}
    yield counter("gesso_router_served", images)
    yield histogram("gesso_router_similarity", {(): tallies.similarity})
    yield counter("gesso_router_unmatched", tallies.unmatched)
    stages = {(stage,): told for stage, told in tallies.stages.items()}
    yield histogram("gesso_router_stage_seconds", stages)


def _quality_errors(tallies: Mapping[int, ErrorTally]) -> Iterable[Metric]:
    """By K: how many images were judged, and how far what was predicted of them lay from it."""
    by_level = {(str(k),): tally for k, tally in tallies.items()}
    reports = {k: t.reports for k, t in by_level.items()}
    yield counter("gesso_router_quality_reports", reports)
    errors = {k: t.error_sum for k, t in by_level.items()}
    yield gauge("gesso_router_quality_error_sum", errors)
    absolute = {k: t.absolute_sum for k, t in by_level.items()}
    yield counter("gesso_router_quality_absolute_error_sum", absolute)
