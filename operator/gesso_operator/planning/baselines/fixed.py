"""Plans that never change: every worker at one level of the service's own model, whatever the load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gesso_operator.planning.actions import adopt, hold
from gesso_operator.planning.baselines.state import BaselineState
from gesso_operator.planning.case import case_of
from gesso_operator.planning.explain import Decision, Diagnostics, Reason, count_text
from gesso_operator.planning.observation import Observation
from gesso_operator.planning.pricing import Prices
from gesso_operator.planning.settings import Settings

Planner = Callable[[Observation, BaselineState | None, Settings], tuple[Decision, BaselineState]]


def fixed(*, fastest: bool = False, keep_models: bool = False) -> Planner:
    """The planner of a fixed plan: K = 0, or the ladder's largest K with `fastest`; its price is 0.

    With `keep_models` workers keep the models they hold; else all hold the service's own.
    """

    def plan(
        observation: Observation, state: BaselineState | None, settings: Settings
    ) -> tuple[Decision, BaselineState]:
        memory = state or BaselineState()
        case = case_of(observation, memory.planner, settings)
        d = Diagnostics(
            workers=case.ready,
            expected=case.expected,
            data=case.forecast.data.value,
            rate_mean=case.forecast.mean,
            current=case.counts,
        )
        level = settings.ladder[-1] if fastest else 0
        models = {m.name: m.model if keep_models else "" for m in case.members}
        levels = {m.name: 0 if models[m.name] else level for m in case.members}
        settled = all(m.model == models[m.name] and m.level == levels[m.name] for m in case.members)
        message = f"policy {settings.policy}: {count_text(case.ready)} at K={level}"
        if not case.ready:
            decision, planner = hold(case, Reason.NO_READY_WORKERS, "no worker is ready", d)
        elif settled and not case.fleet_changed:
            decision, planner = hold(case, Reason.FIXED_POLICY, message, d)
        else:
            reason = Reason.FIXED_POLICY
            decision, planner = adopt(case, models, levels, None, Prices(), reason, message, d)
        return decision, replace(memory, planner=planner)

    return plan
