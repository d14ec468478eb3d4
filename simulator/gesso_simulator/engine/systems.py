"""A policy as a whole: the planner that moves its fleet and the routing that places its prompts, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from gesso.api.service import Policy
from gesso_operator.planning import Decision, Observation, PlannerState, Settings, decide
from gesso_operator.planning.case import with_history
from gesso_operator.planning.settings import ModelVariant
from gesso_router.routing.policies import CENTRAL_QUEUE, ROUTES, Route
from gesso_simulator.baselines.autoscaled import Autoscaled, autoscaler_of
from gesso_simulator.baselines.hpa import SYNC_S
from gesso_simulator.engine.load import Load
from gesso_simulator.scenarios.spec import ScenarioRun

#: Policies that run live as well, by the name in `spec.scheduling.policy`.
LIVE: tuple[Policy, ...] = get_args(Policy)
#: Kubernetes' own autoscaler over workers at K = 0; only where the fleet's size may change.
AUTOSCALED = ("HPAUtilization", "HPAQueue")

_FOR_EVER_S = 1e9

Decide = Callable[[Observation, PlannerState, Settings], tuple[Decision, PlannerState]]


@dataclass(frozen=True)
class System:
    """One policy. `route` places a prompt at once; None: prompts wait in Clipper's central queue."""

    name: str
    route: Route | None
    decide: Decide


def system(policy: str, run: ScenarioRun, load: Load) -> System:
    """The system of a policy by name, an autoscaler's with its target if one is named: `HPAUtilization@0.7`.

    Raises ValueError for one that is not known or not possible here.
    """
    if policy in LIVE:
        return System(policy, None if policy in CENTRAL_QUEUE else ROUTES[policy], decide)
    name = policy.partition("@")[0]
    if name in AUTOSCALED and run.elastic is not None:
        _, target = autoscaler_of(policy)
        metric = load.utilisation if name == "HPAUtilization" else load.queue
        scaled = Autoscaled(f"{name}@{target:g}", metric)
        return System(policy, ROUTES["LeastOutstanding"], scaled.decide)
    possible = (*LIVE, *AUTOSCALED) if run.elastic is not None else LIVE
    raise ValueError(f"policy: {policy} is not allowed: one of {', '.join(possible)}")


def planner_settings(run: ScenarioRun, policy: str, keep_models: bool = False) -> Settings:
    """What the planner is told of a scenario; with `keep_models` that a load takes for ever."""
    others = [m for m in run.models if m]
    elastic = run.elastic
    return Settings(
        ladder=run.ladder,
        latency_s=run.slo_s,
        attainment=run.attainment,
        min_quality=run.min_quality,
        interval_s=plan_interval_s(run, policy),
        policy=next((live for live in LIVE if live == policy), "LeastOutstanding"),
        max_batch=run.max_batch,
        models=tuple(ModelVariant(m, _steps(run, m)) for m in others),
        profiles={
            (d.name, m): profile
            for d in run.classes
            for m, profile in d.profiles.items()
            if m in run.models
        },
        switch_s=tuple(
            (d.name, m, _FOR_EVER_S if keep_models else seconds)
            for d in run.classes
            for m, seconds in d.load_seconds.items()
        )
        if others
        else (),
        workers_min=elastic.least if elastic else None,
        workers_max=elastic.most if elastic else None,
        start_s=elastic.start_seconds if elastic else 0.0,
        quality_target=elastic.least_mean_quality if elastic else None,
    )


def plan_interval_s(run: ScenarioRun, policy: str) -> float:
    """Seconds between two plans; an autoscaler looks as often as Kubernetes does."""
    return run.plan_interval_s if policy in LIVE else SYNC_S


def _steps(run: ScenarioRun, model: str) -> int:
    return next(d.profiles[model].steps for d in run.classes if model in d.profiles)


def planner_state(run: ScenarioRun, settings: Settings) -> PlannerState:
    """What the planner remembers when the run begins: the daily shape, where there is a history."""
    history = run.history
    if history is None:
        return PlannerState()
    span = history.step_seconds * len(history.counts)
    counts = history.counts.tolist()
    return with_history(PlannerState(), counts, history.step_seconds, -span, settings.slot_s)
