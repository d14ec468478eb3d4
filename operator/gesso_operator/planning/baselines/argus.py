"""Argus (Middleware'25): the mix and each level's share by MILP for the last minute's load; its route plan."""

from __future__ import annotations

from dataclasses import replace

from gesso_operator.planning.baselines.oda import Matrix, oda
from gesso_operator.planning.baselines.periodic import Solved, periodic
from gesso_operator.planning.baselines.split import (
    Split,
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

#: Seconds between two plans: its authors' traces count by the minute.
PERIOD_S = 60.0


def plan_argus(
    observation: Observation, state: BaselineState | None, settings: Settings
) -> tuple[Decision, BaselineState]:
    """The next decision: every minute from that minute's rate, at once when a worker came or went."""
    return periodic(observation, state, settings, PERIOD_S, _solve, lambda period, memory: False)


def _solve(case: Case, period: Period, memory: BaselineState) -> Solved:
    settings = case.settings
    # A period that has hardly begun tells no rate: a fleet that changed is planned for the last one.
    known = memory.demand is not None and period.seconds < PERIOD_S / 2
    demand = memory.demand if known and memory.demand is not None else period.rate
    workers = [sum(m.device == d for m in case.members) for d in case.devices]
    rates = _rates(case)
    split = best_split(
        rates, period.mean_quality(settings), workers, demand, settings.solver_limit_s
    )
    carried = demand
    if split is None:
        split = fastest_split(rates, workers)
        carried = most_throughput(rates, workers)
    optimal = period.optimal if sum(period.optimal) > 0 else memory.optimal
    route = _route(optimal, split, settings)
    return Solved(split, demand, carried, replace(memory, demand=demand, optimal=optimal), route)


def _rates(case: Case) -> Table:
    """Images/s of one worker by [device class][variant]; 0 for other models, which Argus does not use."""
    settings = case.settings
    profiles = dict(case.state.profiles)
    base = own_profile(profiles, case.devices)
    rows = []
    for device in case.devices:
        profile = profiles.get((device, ""), base)
        assert profile is not None
        batch = min(settings.max_batch, profile.best_batch(settings.latency_s / 2))
        rows.append(
            [0.0 if model else profile.throughput(k, batch) for model, k in settings.variants]
        )
    return rows


def _route(optimal: tuple[float, ...], split: Split, settings: Settings) -> Matrix:
    """P[optimal K][K'] over the ladder; the identity where either side is not known."""
    n = len(settings.ladder)
    planned = [sum(row[v] for row in split.served) for v in range(n)]
    if sum(optimal) > 0 and sum(planned) > 0:
        return oda(optimal, planned)
    return tuple(tuple(float(i == j) for j in range(n)) for i in range(n))
