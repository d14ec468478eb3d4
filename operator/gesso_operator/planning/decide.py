"""The loop's core: one observation in, one decision and the next state out.

observe -> forecast -> solve -> gate -> hysteresis -> explain. The live loop and the simulator both call
`decide`.
"""

from __future__ import annotations

from dataclasses import replace

from gesso_operator.planning.actions import adopt, hold, keep, passive, without_data
from gesso_operator.planning.baselines import BASELINES
from gesso_operator.planning.case import Case, PlannerState, case_of
from gesso_operator.planning.explain import Decision, Diagnostics, Reason, count_text
from gesso_operator.planning.forecast import DataState
from gesso_operator.planning.instance import own_profile
from gesso_operator.planning.moves import planned
from gesso_operator.planning.observation import Observation
from gesso_operator.planning.pricing import Prices
from gesso_operator.planning.resize import resized
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import SolverError

_DATA_REASONS = {
    DataState.MISSING: (Reason.NO_REPORT, "the router does not report"),
    DataState.STALE: (Reason.STALE_REPORT, "the router's report is old"),
    DataState.WARMING_UP: (Reason.WARMING_UP, "one report so far, no rate yet"),
}


def decide(
    observation: Observation, state: PlannerState, settings: Settings
) -> tuple[Decision, PlannerState]:
    """The next decision and the state to pass in next time. Never raises on missing or odd data: it holds."""
    if settings.mode == "Auto":
        return _wanted(observation, state, settings)
    wanted = None
    if settings.mode == "Recommend":
        wanted, state = _wanted(observation, state, settings)
    case = case_of(observation, state, settings)
    return passive(replace(case, revision=case.revision + int(wanted is not None)), wanted)


def _wanted(
    observation: Observation, state: PlannerState, settings: Settings
) -> tuple[Decision, PlannerState]:
    """What the policy would do."""
    baseline = BASELINES.get(settings.policy)
    if baseline is not None:
        decision, memory = baseline(observation, state.baseline, settings)
        return decision, replace(state, baseline=memory)
    case = case_of(observation, state, settings)
    decision, state = _plan(case)
    if settings.elastic:
        return resized(replace(case, state=state), decision)
    return decision, state


def _plan(case: Case) -> tuple[Decision, PlannerState]:
    state = case.state
    diagnostics = Diagnostics(
        workers=case.ready,
        expected=case.expected,
        data=case.forecast.data.value,
        rate_mean=case.forecast.mean,
        rate_upper=case.forecast.upper,
        rate_cautious=case.forecast.cautious,
        jumped=case.forecast.jumped,
        current=case.counts,
        reversals=state.hysteresis.reversals,
        model_reversals=state.model_hysteresis.reversals,
    )
    if not case.ready:
        return hold(case, Reason.NO_READY_WORKERS, "no worker is ready", diagnostics)
    if state.plan is None:
        models, levels = keep(case)
        message = f"first plan for {count_text(len(levels))}, before any load was seen"
        reason = Reason.INITIAL_PLAN
        return adopt(case, models, levels, None, Prices(), reason, message, diagnostics)
    if case.forecast.data is not DataState.READY:
        return without_data(case, *_DATA_REASONS[case.forecast.data], diagnostics)
    if own_profile(dict(state.profiles), case.devices) is None:
        return without_data(case, Reason.NO_PROFILE, "no worker has measured itself", diagnostics)
    try:
        return planned(case, diagnostics)
    except SolverError as error:
        return without_data(case, Reason.SOLVER_FAILED, f"the solver failed: {error}", diagnostics)
