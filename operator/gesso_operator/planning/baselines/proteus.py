"""Proteus (ASPLOS'24): the most accurate variants that carry all demand, whichever prompts come.

Where the service has other models, they are its variants, each generated in full, and each change of a worker's
variant loads a model. Else its variants are the levels of the one model.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gesso.profile import Profile
from gesso_operator.planning.baselines.periodic import Solved, periodic
from gesso_operator.planning.baselines.split import (
    Table,
    best_split,
    fastest_split,
    most_throughput,
)
from gesso_operator.planning.baselines.state import BaselineState, Period
from gesso_operator.planning.case import Case
from gesso_operator.planning.explain import Decision
from gesso_operator.planning.instance import own_profile
from gesso_operator.planning.observation import Observation
from gesso_operator.planning.settings import Settings

PERIOD_S = 30.0
#: Centre of mass of the EWMA of the rate, in periods, and the provision above it.
CENTRE_OF_MASS = 1.6
PROVISION = 1.05
#: By how much the demand is lowered as long as it is infeasible. Its authors say "a little"; assumed.
LOWERED = 0.99
#: Arrivals are a sudden change so many deviations of a Poisson count away from what was planned for. Assumed.
SUDDEN_DEVIATIONS = 4.0


def plan_proteus(
    observation: Observation, state: BaselineState | None, settings: Settings
) -> tuple[Decision, BaselineState]:
    """The next decision: every 30 s, early on a sudden change of the rate or when a worker came or went."""
    return periodic(observation, state, settings, PERIOD_S, _solve, _sudden)


def capacity(profile: Profile, skipped_steps: int, settings: Settings) -> float:
    """B / latency(B), images/s, at the largest batch with a latency within SLO/2; at batch 1 if none has."""
    most = min(profile.max_batch, settings.max_batch)
    fit = [
        b
        for b in range(1, most + 1)
        if profile.latency_seconds(skipped_steps, b) <= settings.latency_s / 2
    ]
    batch = max(fit, default=1)
    return batch / profile.latency_seconds(skipped_steps, batch)


def feasible(demand: float, most: float) -> float:
    """The demand, lowered in steps until a fleet that serves `most` carries it; 0 where it serves nothing."""
    if demand <= most:
        return demand
    if most <= 0:
        return 0.0
    steps = math.ceil(math.log(most / demand) / math.log(LOWERED) - 1e-9)
    return min(most, demand * LOWERED**steps)


def _sudden(period: Period, memory: BaselineState) -> bool:
    if memory.weight <= 0 or period.seconds <= 0:
        return False
    expected = memory.arrivals / memory.weight * period.seconds
    return abs(period.arrivals - expected) > SUDDEN_DEVIATIONS * math.sqrt(max(expected, 1.0))


def _solve(case: Case, period: Period, memory: BaselineState) -> Solved:
    settings = case.settings
    # Observations weigh (1 - alpha)^age with alpha = 1 / (1 + com), brought to sum 1.
    keep = 1.0 - 1.0 / (1.0 + CENTRE_OF_MASS)
    if period.seconds >= settings.interval_s / 2 or memory.weight <= 0:
        memory = replace(
            memory,
            arrivals=keep * memory.arrivals + period.rate,
            weight=keep * memory.weight + 1.0,
        )
    demand = PROVISION * memory.arrivals / memory.weight
    workers = [sum(m.device == d for m in case.members) for d in case.devices]
    rates = _rates(case)
    carried = feasible(demand, most_throughput(rates, workers))
    quality = period.mean_quality(settings)
    split = best_split(rates, quality, workers, carried, settings.solver_limit_s)
    if split is None:
        split = fastest_split(rates, workers)
    return Solved(split, demand, carried, replace(memory, demand=demand))


def _rates(case: Case) -> Table:
    """Images/s of one worker by [device class][variant]; 0 where it is not one of Proteus's variants."""
    settings = case.settings
    profiles = dict(case.state.profiles)
    base = own_profile(profiles, case.devices)
    rows = []
    for device in case.devices:
        row = []
        for model, k in settings.variants:
            profile = profiles.get((device, model), None if model else base)
            usable = profile is not None and (k == 0 or not settings.models)
            row.append(capacity(profile, k, settings) if profile is not None and usable else 0.0)
        rows.append(row)
    return rows
