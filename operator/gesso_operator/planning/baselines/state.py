"""What a baseline's planner remembers, and what has come in since it last planned."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from gesso_operator.planning.baselines.oda import Matrix
from gesso_operator.planning.case import PlannerState
from gesso_operator.planning.explain import Decision
from gesso_operator.planning.forecast import curve_of
from gesso_operator.planning.observation import ClassCount, RouterReport
from gesso_operator.planning.settings import Settings


@dataclass(frozen=True)
class BaselineState:
    """Start from `BaselineState()`.

    `planner` holds what every planner remembers; `since` is the report that the current period began with,
    `demand` the images/s of the last solve (None: none yet), `arrivals` and `weight` an EWMA of the rate and of
    1, `optimal` the last known shares of the prompts by optimal K over the ladder.
    """

    planner: PlannerState = field(default_factory=PlannerState)
    since: RouterReport | None = None
    demand: float | None = None
    arrivals: float = 0.0
    weight: float = 0.0
    optimal: tuple[float, ...] = ()


@dataclass(frozen=True)
class Period:
    """What came between two reports: seconds, arrivals, arrivals by class, and by optimal K over the ladder."""

    seconds: float
    arrivals: int
    classes: tuple[tuple[ClassCount, float], ...]
    optimal: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Arrivals per second; 0 for no time at all."""
        return self.arrivals / self.seconds if self.seconds > 0 else 0.0

    def mean_quality(self, settings: Settings) -> tuple[float, ...]:
        """Mean quality by variant over the prompts that it can serve; 0 where there are none."""
        curves = [(curve_of(c.quality, settings).quality, n) for c, n in self.classes]
        found = []
        for v in range(len(settings.variants)):
            able = [(q[v], n) for q, n in curves if q[v] > 0 and n > 0]
            total = sum(n for _, n in able)
            found.append(sum(q * n for q, n in able) / total if total > 0 else 0.0)
        return tuple(found)


def period_of(before: RouterReport, report: RouterReport, settings: Settings) -> Period:
    """The period between two reports; since its start where the router has started again meanwhile.

    Where no prompt came, classes count by all that ever came.
    """
    restarted = report.offered < before.offered or report.uptime_s < before.uptime_s
    past = {} if restarted else {c.name: c.arrivals for c in before.classes}
    came = [(c, float(max(0, c.arrivals - past.get(c.name, 0)))) for c in report.classes]
    if not any(n for _, n in came):
        came = [(c, float(c.arrivals)) for c in report.classes]
    levels = {} if restarted else dict(before.optimal_levels)
    counts = {k: max(0, n - levels.get(k, 0)) for k, n in report.optimal_levels}
    seconds = report.uptime_s if restarted else report.at_s - before.at_s
    return Period(
        seconds=seconds if math.isfinite(seconds) else 0.0,
        arrivals=report.offered - (0 if restarted else before.offered),
        classes=tuple(came),
        optimal=tuple(float(counts.get(k, 0)) for k in settings.ladder),
    )


def with_route(
    decision: Decision, planner: PlannerState, route: Matrix
) -> tuple[Decision, PlannerState]:
    """The same with a route plan: a plan that was adopted comes without one."""
    if decision.plan is None or decision.plan.route == route:
        return decision, planner
    plan = replace(decision.plan, route=route)
    return replace(decision, plan=plan, wanted=plan), replace(planner, plan=plan)
