"""What the operator tells Prometheus: plans and non-plans by reason, and how its loops fare."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gesso.metrics.families import counter, gauge, summary
from gesso_operator.cluster.manager import GAUGES, Manager


class OperatorMetrics(Collector):
    """Reads the manager when it is scraped; see gesso.metrics.catalogue."""

    def __init__(self, manager: Manager) -> None:
        """Nothing is counted here."""
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        manager = self._manager
        yield gauge("gesso_operator_leading", float(manager.leads))
        decisions = {
            (*key, reason, str(changed).lower()): float(count)
            for (key, reason, changed), count in manager.decisions.items()
        }
        yield counter("gesso_operator_decisions", decisions)
        told = manager.gauges()
        for name in GAUGES:
            rows = {
                tuple(key): float(value)
                for key, gauges in told.items()
                if (value := gauges.get(name)) is not None
            }
            yield gauge(f"gesso_operator_{name}", rows)
        rounds = {tuple(key): row for key, row in manager.rounds().items()}
        yield summary("gesso_operator_round_seconds", rounds)
        yield counter("gesso_operator_status_writes", manager.status_writes)


def registry(manager: Manager) -> CollectorRegistry:
    """Everything that is scraped from this process."""
    found = CollectorRegistry()
    found.register(OperatorMetrics(manager))
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    GCCollector(registry=found)
    return found
