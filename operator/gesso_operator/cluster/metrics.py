"""What the operator tells Prometheus: plans and non-plans by reason, and how its loops fare."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from gesso_operator.cluster.manager import Manager


class OperatorMetrics(Collector):
    """Reads the manager when it is scraped."""

    def __init__(self, manager: Manager) -> None:
        """Nothing is counted here."""
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        manager = self._manager
        by_service = ["namespace", "service"]
        leading = GaugeMetricFamily("gesso_operator_leading", "1 where this operator may act.")
        leading.add_metric([], float(manager.leads))
        yield leading
        decisions = CounterMetricFamily(
            "gesso_operator_decisions",
            "Rounds of the control loop by reason; new_plan is whether a plan was made.",
            labels=[*by_service, "reason", "new_plan"],
        )
        for (key, reason, changed), count in manager.decisions.items():
            decisions.add_metric([*key, reason, str(changed).lower()], count)
        yield decisions
        names = (
            ("solve_seconds", "Seconds that the last decision took."),
            ("price", "Relative quality that one more worker-second would buy."),
            ("rate", "Images per second that arrive, as planned for."),
            ("workers_wanted", "Workers that are wanted."),
            ("workers_ready", "Workers that serve."),
            ("attainment", "Share served in time over the last minute."),
            ("quality", "Mean predicted relative quality over the last minute."),
        )
        for name, says in names:
            family = GaugeMetricFamily(f"gesso_operator_{name}", says, labels=by_service)
            for key, gauges in manager.gauges().items():
                value = gauges.get(name)
                if value is not None:
                    family.add_metric([*key], value)
            yield family
        rounds = SummaryMetricFamily(
            "gesso_operator_round_seconds", "Rounds of a service's loop.", labels=by_service
        )
        for key, (count, seconds) in manager.rounds().items():
            rounds.add_metric([*key], count, seconds)
        yield rounds
        writes = CounterMetricFamily("gesso_operator_status_writes", "Statuses written.")
        writes.add_metric([], manager.status_writes)
        yield writes


def registry(manager: Manager) -> CollectorRegistry:
    """Everything that is scraped from this process."""
    found = CollectorRegistry()
    found.register(OperatorMetrics(manager))
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    GCCollector(registry=found)
    return found
