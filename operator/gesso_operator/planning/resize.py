"""The size of an elastic fleet as part of a decision: asks, and says why."""

from __future__ import annotations

from dataclasses import replace

from gesso_operator.planning.case import Case, PlannerState
from gesso_operator.planning.explain import Decision, Reason, count_text
from gesso_operator.planning.forecast import DataState
from gesso_operator.planning.instance import instance_of, own_profile
from gesso_operator.planning.sizes import Sizes
from gesso_operator.planning.sizing import Sized, fleet_size


def resized(case: Case, decision: Decision) -> tuple[Decision, PlannerState]:
    """The decision with the number of workers that there should be.

    Without data the number asked for last stays; before any, the workers that there are, within the bounds.
    """
    settings, state = case.settings, case.state
    least, most = settings.workers_min or 1, settings.workers_max or 1
    size = state.sizing.size
    last = min(most, max(least, case.expected if size is None else size))
    profile = own_profile(dict(state.profiles), case.devices)
    if case.forecast.data is not DataState.READY or profile is None or not case.members:
        return replace(decision, fleet_size=last), state
    instance = instance_of(
        case.forecast.upper,
        case.forecast.classes,
        None,
        case.members,
        dict(state.profiles),
        settings,
    )
    sizes = Sizes(instance.problem, profile, settings)
    sizing, sized = fleet_size(
        state.sizing, case.forecast, sizes, case.expected, case.now_s, settings
    )
    diagnostics = replace(
        decision.diagnostics,
        rate_ahead=sized.rate,
        rate_ahead_upper=sized.upper,
        size_needed=sized.needed,
        size_wanted=sized.wanted,
        size_kept=sized.kept,
        worker_cost=sized.prices.worker,
    )
    decision = replace(decision, fleet_size=sized.size, diagnostics=diagnostics)
    if sized.size != sized.before:
        decision = _told(decision, sized)
    return decision, replace(state, sizing=sizing)


def _told(decision: Decision, sized: Sized) -> Decision:
    """The change of the size in the message; it is the reason where the plan stays as it is."""
    grows = sized.size > sized.before
    if not grows:
        why = f"more were not worth their hours (at most {sized.size})"
    else:
        why = (
            f"{sized.rate:.2f} images/s are expected, up to {sized.upper:.2f}, and what they gain is worth "
            "the workers"
        )
    text = f"{count_text(sized.before)} to {sized.size}: {why}"
    if decision.changed:
        return replace(decision, message=f"{decision.message}; {text}")
    return replace(decision, reason=Reason.SCALE_OUT if grows else Reason.SCALE_IN, message=text)
