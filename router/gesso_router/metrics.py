"""Prometheus metrics `gesso_router_*`, read off the ledger and the fleet when scraped.

Serving pays nothing for them. Labels are bounded: outcomes, levels of the ladder, prompt classes,
workers of the plan. No prompts, no tenants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gesso_router.core import Router
from gesso_router.feedback import ErrorTally
from gesso_router.fleet import CacheReport
from gesso_router.routing.choose import fleet_backlog_seconds, fleet_price


class RouterCollector(Collector):
    """Turns a router's state into metric families."""

    def __init__(self, router: Router, clock: Callable[[], float] = time.monotonic) -> None:
        self._router = router
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector."""
        router, ledger = self._router, self._router.ledger
        yield _counter("offered_requests", "Well-formed requests that came in.", ledger.offered)
        outcomes = CounterMetricFamily(
            "gesso_router_requests",
            "Well-formed requests that ended, by outcome.",
            labels=["outcome"],
        )
        for outcome, n in ledger.ended.items():
            outcomes.add_metric([outcome.value], n)
        yield outcomes
        levels = CounterMetricFamily(
            "gesso_router_images", "Images served, by skipped steps K.", labels=["skipped_steps"]
        )
        for k, n in ledger.served_by_level.items():
            levels.add_metric([str(k)], n)
        yield levels
        classes = CounterMetricFamily(
            "gesso_router_prompts", "Prompts, by prompt class.", labels=["prompt_class"]
        )
        for name, tally in ledger.classes.items():
            classes.add_metric([name], tally.arrivals)
        yield classes
        yield _counter("retries", "Requests sent to a second worker.", ledger.retried)
        yield _counter(
            "unanswered_lookups",
            "Look-ups that a shard failed or did not answer in time.",
            router.unanswered_lookups,
        )
        yield _counter("probed_shards", "Shards that look-ups have asked.", router.probed)
        yield _counter("cache_hits", "Images served with K > 0.", ledger.cache_hits)
        yield _counter(
            "predicted_quality_sum",
            "Sum of predicted relative quality over served.",
            ledger.quality_sum,
        )
        yield from _quality_errors(router.feedback.tallies)
        now = self._clock()
        p50, p95 = ledger.latency_percentiles(now, (0.5, 0.95))
        latency = GaugeMetricFamily(
            "gesso_router_latency_seconds",
            "Latency of images served in the last minute, arrival to image.",
            labels=["quantile"],
        )
        latency.add_metric(["0.5"], p50)
        latency.add_metric(["0.95"], p95)
        yield latency
        view = router.view()
        yield _gauge("open_requests", "Accepted requests without an image yet.", ledger.open)
        yield _gauge("workers_ready", "Workers that may be given requests.", len(view.workers))
        yield _gauge(
            "backlog_seconds",
            "Worker-seconds of accepted work per ready worker.",
            fleet_backlog_seconds(view.workers),
        )
        yield _gauge(
            "price", "Relative quality per worker-second.", fleet_price(view, router.policy).value
        )
        yield _gauge(
            "plan_revision",
            "Revision of the plan in force.",
            router.plan.revision if router.plan else 0,
        )
        yield _gauge(
            "estimate_margin", "Actual over estimated latency, 95th percentile.", view.margin
        )
        load = GaugeMetricFamily(
            "gesso_router_worker_requests", "Requests on a worker.", labels=["worker", "state"]
        )
        for worker in view.workers:
            load.add_metric([worker.name, "active"], len(worker.active))
            load.add_metric([worker.name, "queued"], len(worker.queued))
        yield load
        yield from _caches(router.fleet.caches())


def registry_of(router: Router) -> CollectorRegistry:
    """A registry of its own with a router's metrics."""
    registry = CollectorRegistry()
    registry.register(RouterCollector(router))
    return registry


def _caches(caches: Mapping[str, CacheReport]) -> Iterable[Metric]:
    """By worker: what its shard holds, and what went wrong on its disk."""
    entries = GaugeMetricFamily(
        "gesso_router_worker_cache_entries", "Entries of a worker's shard.", labels=["worker"]
    )
    size = GaugeMetricFamily(
        "gesso_router_worker_cache_bytes", "Bytes of a worker's shard.", labels=["worker", "tier"]
    )
    faults = CounterMetricFamily(
        "gesso_router_worker_cache_faults",
        "Files not as written (corrupt), entries in memory only (unwritten), writes that failed.",
        labels=["worker", "fault"],
    )
    for worker, cache in caches.items():
        entries.add_metric([worker], cache.entries)
        size.add_metric([worker, "memory"], cache.memory_bytes)
        size.add_metric([worker, "disk"], cache.disk_bytes)
        for fault in ("corrupt", "unwritten", "failed"):
            faults.add_metric([worker, fault], getattr(cache, fault))
    return entries, size, faults


def _quality_errors(tallies: Mapping[int, ErrorTally]) -> Iterable[Metric]:
    """By K: how many images were judged, and how far what was predicted of them lay from it."""
    labels = ["skipped_steps"]
    reports = CounterMetricFamily(
        "gesso_router_quality_reports", "Images whose quality was reported, by K.", labels=labels
    )
    # It falls where too little was predicted: no counter.
    errors = GaugeMetricFamily(
        "gesso_router_quality_error_sum",
        "Sum over reported images of predicted minus reported relative quality.",
        labels=labels,
    )
    absolute = CounterMetricFamily(
        "gesso_router_quality_absolute_error_sum",
        "Sum over reported images of how far predicted and reported relative quality lie apart.",
        labels=labels,
    )
    for k, tally in tallies.items():
        reports.add_metric([str(k)], tally.reports)
        errors.add_metric([str(k)], tally.error_sum)
        absolute.add_metric([str(k)], tally.absolute_sum)
    return reports, errors, absolute


def _counter(name: str, help_text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"gesso_router_{name}", help_text, value=value)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"gesso_router_{name}", help_text, value=value)
