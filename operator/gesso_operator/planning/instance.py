"""From what is known to the solver's instance: capacity, demand, and what a backlog takes away."""

from __future__ import annotations

from gesso.plan import PromptClass, QualityCurve
from gesso.profile import Profile, mean_profile
from gesso_operator.planning.forecast import Forecast
from gesso_operator.planning.observation import RouterReport, WorkerView
from gesso_operator.planning.queueing import level_bounds, working_batch
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import Problem

_LEAST_SLACK = 0.1


def problem_of(
    forecast: Forecast,
    report: RouterReport | None,
    current: tuple[int, ...],
    workers: int,
    profile: Profile,
    settings: Settings,
) -> tuple[Problem, bool]:
    """The instance, and whether no level meets the deadline (then planned as if all did).

    `current` counts the ready workers at each level; `workers` counts all that are ready.
    """
    ladder = settings.ladder
    batch = working_batch(profile, settings)
    bound = level_bounds(profile, workers, settings)
    unreachable = max(bound) <= 0
    if unreachable:
        bound = (settings.max_utilisation,) * len(ladder)
    work = tuple(profile.work_seconds(k, batch) for k in ladder)
    # A full batch in hand is how a busy worker should be; what is more is a backlog.
    excess = max(0.0, (report.backlog_s if report else 0.0) - batch * work[0])
    # Without curves only full generation is known to be good.
    full_only = QualityCurve(ladder, (1.0,) + (0.0,) * (len(ladder) - 1))
    problem = Problem(
        ladder=ladder,
        work_s=work,
        bound=bound,
        rate=forecast.upper,
        classes=forecast.classes or (PromptClass("unknown", 1.0, full_only),),
        workers=workers,
        current=current,
        min_quality=settings.min_quality,
        shed_penalty=settings.shed_penalty,
        stray_share=settings.stray_share,
        slack=max(_LEAST_SLACK, 1.0 - excess / settings.drain_s),
    )
    return problem, unreachable


def fleet_profile(ready: tuple[WorkerView, ...], settings: Settings) -> Profile | None:
    """The mean profile of the ready workers; of those with the most common number of steps, if they differ."""
    profiles = [w.profile for w in ready if w.profile and w.profile.steps > settings.ladder[-1]]
    steps = [p.steps for p in profiles]
    if not steps:
        return None
    common = max(sorted(set(steps)), key=steps.count)
    return mean_profile([p for p in profiles if p.steps == common])
