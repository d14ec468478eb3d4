"""The loop that Argus and Proteus share: plan every so often, at once when the fleet changed, else hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gesso_operator.planning.actions import adopt, hold, keep, without_data
from gesso_operator.planning.assign import placed
from gesso_operator.planning.baselines.oda import Matrix
from gesso_operator.planning.baselines.split import Split
from gesso_operator.planning.baselines.state import BaselineState, Period, period_of, with_route
from gesso_operator.planning.case import Case, case_of
from gesso_operator.planning.explain import Decision, Diagnostics, Reason, count_text, mix_text
from gesso_operator.planning.forecast import DataState
from gesso_operator.planning.instance import own_profile
from gesso_operator.planning.observation import Observation
from gesso_operator.planning.pricing import Prices
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import SolverError

_DATA_REASONS = {
    DataState.MISSING: (Reason.NO_REPORT, "the router does not report"),
    DataState.STALE: (Reason.STALE_REPORT, "the router's report is old"),
    DataState.WARMING_UP: (Reason.WARMING_UP, "one report so far, no rate yet"),
}


@dataclass(frozen=True)
class Solved:
    """What a solve gives: the split along `settings.variants`, the route plan, what is to be remembered.

    `carried` is the demand that it serves, at most `demand`.
    """

    split: Split
    demand: float
    carried: float
    state: BaselineState
    route: Matrix = ()


#: Solves for a fleet and what came in the last period. Raises SolverError.
Solve = Callable[[Case, Period, BaselineState], Solved]
#: Whether what came in a period that is not over yet calls for a plan now.
Trigger = Callable[[Period, BaselineState], bool]


def periodic(
    observation: Observation,
    state: BaselineState | None,
    settings: Settings,
    period_s: float,
    solve: Solve,
    trigger: Trigger,
) -> tuple[Decision, BaselineState]:
    """One decision; the first solve is as soon as there is a rate."""
    memory = state or BaselineState()
    case = case_of(observation, memory.planner, settings)
    report = observation.report
    d = Diagnostics(
        workers=case.ready,
        expected=case.expected,
        data=case.forecast.data.value,
        rate_mean=case.forecast.mean,
        current=case.counts,
    )
    name = settings.policy
    if not case.ready:
        return _held(case, memory, Reason.NO_READY_WORKERS, "no worker is ready", d)
    if case.state.plan is None:
        models, levels = keep(case)
        message = f"first plan of {name} for {count_text(len(levels))}, before any load was seen"
        reason = Reason.INITIAL_PLAN
        decision, planner = adopt(case, models, levels, None, Prices(), reason, message, d)
        return decision, replace(memory, planner=planner, since=memory.since or report)
    if report is None or case.forecast.data is not DataState.READY:
        missing = DataState.MISSING if report is None else case.forecast.data
        return _frozen(case, memory, *_DATA_REASONS[missing], d)
    if own_profile(dict(case.state.profiles), case.devices) is None:
        return _frozen(case, memory, Reason.NO_PROFILE, "no worker has measured itself", d)
    if memory.since is None:
        return _frozen(case, replace(memory, since=report), *_DATA_REASONS[DataState.WARMING_UP], d)
    period = period_of(memory.since, report, settings)
    over = period.seconds >= period_s - settings.interval_s / 2
    due = period.seconds > 0 and (over or memory.demand is None or trigger(period, memory))
    if not due and not case.fleet_changed:
        left = max(0.0, period_s - period.seconds)
        return _held(case, memory, Reason.STEADY, f"{name} plans again in {left:.0f} s", d)
    try:
        solved = solve(case, period, memory)
    except SolverError as error:
        return _frozen(case, memory, Reason.SOLVER_FAILED, f"the solver failed: {error}", d)
    since = report if due else memory.since
    return _adopted(case, replace(solved, state=replace(solved.state, since=since)), memory, d)


def _adopted(
    case: Case, solved: Solved, before: BaselineState, d: Diagnostics
) -> tuple[Decision, BaselineState]:
    settings, split = case.settings, solved.split
    models, levels = placed(case.members, case.devices, settings.variants, split.workers)
    proposed = tuple(sum(column) for column in zip(*split.workers, strict=True))
    d = replace(d, proposed=proposed, shed=max(0.0, solved.demand - solved.carried))
    rose = solved.demand > (before.demand or 0.0)
    if case.fleet_changed:
        reason = Reason.FLEET_CHANGED
    elif solved.carried < solved.demand * (1 - 1e-9):
        reason = Reason.OVERLOADED
    else:
        reason = Reason.LOAD_ROSE if rose else Reason.LOAD_FELL
    message = (
        f"{settings.policy} plans for {solved.demand:.2f} images/s, of which {count_text(case.ready)} "
        f"carry {solved.carried:.2f}: mix {mix_text(settings.variants, proposed)}"
    )
    decision, planner = adopt(case, models, levels, split.served, Prices(), reason, message, d)
    decision, planner = with_route(decision, planner, solved.route)
    return decision, replace(solved.state, planner=planner)


def _held(
    case: Case, memory: BaselineState, reason: Reason, message: str, d: Diagnostics
) -> tuple[Decision, BaselineState]:
    decision, planner = hold(case, reason, message, d)
    return decision, replace(memory, planner=planner)


def _frozen(
    case: Case, memory: BaselineState, reason: Reason, why: str, d: Diagnostics
) -> tuple[Decision, BaselineState]:
    """Without data the plan stays, its route plan too."""
    before = case.state.plan
    decision, planner = without_data(case, reason, why, d)
    decision, planner = with_route(decision, planner, before.route if before else ())
    return decision, replace(memory, planner=planner)
