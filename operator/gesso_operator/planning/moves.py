"""Whether to move: first workers between models, which costs, then the levels of what they hold, which
hardly does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from gesso_operator.planning import explain, gate
from gesso_operator.planning.actions import adopt, hold, keep
from gesso_operator.planning.assign import placed
from gesso_operator.planning.case import Case, PlannerState
from gesso_operator.planning.explain import Decision, Diagnostics, Reason
from gesso_operator.planning.gate import Direction
from gesso_operator.planning.instance import (
    Instance,
    change_costs,
    held_of,
    instance_of,
    kinds_of,
)
from gesso_operator.planning.models import model_move
from gesso_operator.planning.pooled import Pooled, pooled
from gesso_operator.planning.pricing import priced, repriced
from gesso_operator.planning.problem import Counts, Problem, Table
from gesso_operator.planning.solve import Solution, best, held
from gesso_operator.planning.wish import NOTHING, Wish, direction_of, speed, weighed

#: Standard deviations that a rate must be away from another to be another.
_MOVED_DEVIATIONS = 4.0


def planned(case: Case, d: Diagnostics) -> tuple[Decision, PlannerState]:
    """The decision where there is data. Raises SolverError where the solver fails."""
    instance = _instance(case, case.forecast.upper)
    pool = pooled(instance.problem)
    d = _figures(case, instance, pool, d)
    if len(instance.problem.models) > 1:
        case, d, goal = model_move(case, instance.problem, d)
        if goal is not None:
            return _switched(case, instance, pool, goal, d)
    return _levels(case, instance, pool, d)


def _switched(
    case: Case, instance: Instance, pool: Pooled, goal: Solution, d: Diagnostics
) -> tuple[Decision, PlannerState]:
    models, levels = placed(case.members, case.devices, case.settings.variants, goal.workers)
    after = _by_variant(goal.workers)
    before = d.current
    variants = case.settings.variants
    d = replace(d, proposed=after, objective=goal.objective, shed=goal.shed)
    moving = sum(1 for m in case.members if models[m.name] != m.model)
    message = (
        f"{explain.load_text(d)}, ahead {d.rate_models:.2f}: {explain.count_text(moving)} to another "
        f"model, mix {explain.mix_text(variants, before)} to {explain.mix_text(variants, after)}"
        f"{explain.shed_text(d)}"
    )
    # The price is that of what serves meanwhile; the move is priced when the workers are there.
    serving = _serving(case, instance.problem, models)
    prices = priced(serving, pool, dict(case.state.profiles), case.forecast.mean, case.settings)
    reason = Reason.MODEL_SWITCH
    return adopt(case, models, levels, goal.served, prices, reason, message, d)


def _levels(
    case: Case, instance: Instance, pool: Pooled, d: Diagnostics
) -> tuple[Decision, PlannerState]:
    """The levels of what the workers hold."""
    state, settings = case.state, case.settings
    wish = _level_wish(case, instance, pool)
    hysteresis, granted = gate.ask(
        state.hysteresis, wish.granted_way, case.forecast.jumped, settings
    )
    # A new spec is no noise: what it asks for is given at once.
    granted = granted or (bool(case.spec_changes) and wish.goal is not None)
    chosen = wish.goal if granted and wish.goal is not None else wish.stay
    if chosen is None and case.made_for_other:
        chosen = held(_costed(case, instance.problem, pool), settings.solver_limit_s)
    d = replace(
        d,
        proposed=_by_variant(wish.goal.workers) if wish.goal else d.current,
        objective=wish.goal.objective if wish.goal else pool.objective,
        objective_held=wish.stay.objective if wish.stay else pool.objective,
        benefit_share=wish.benefit,
        disruption_share=wish.disruption,
        direction=wish.direction.value,
        agreed=hysteresis.agreed,
        needed=gate.needed(hysteresis, wish.direction, settings),
        reversals=hysteresis.reversals,
    )
    reason = _move_reason(case, wish.direction, d, instance.unreachable)
    if granted:
        hysteresis = gate.moved(hysteresis, wish.direction, settings)
    state = replace(state, hysteresis=hysteresis)
    if wish.direction is Direction.NONE and case.settled and state.rate_count <= 0:
        state = replace(state, rate=case.forecast.mean, rate_count=state.forecast.count)
    case = replace(case, state=state)
    serving = _serving(case, instance.problem)
    prices = priced(serving, pool, dict(case.state.profiles), case.forecast.mean, case.settings)
    tail = f"{explain.quality_text(d)}{explain.shed_text(d)}{_doubt(case, instance.unreachable)}"
    if (granted or case.made_for_other) and chosen is not None:
        models, levels = placed(case.members, case.devices, settings.variants, chosen.workers)
        if case.spec_changes:
            reason = Reason.SPEC_CHANGED
        elif not granted:
            reason = Reason.FLEET_CHANGED
        after = _by_variant(chosen.workers)
        texts = [explain.mix_text(settings.variants, m) for m in (d.current, after)]
        move = f"mix {texts[0]} to {texts[1]}" if after != d.current else f"mix {texts[1]} stays"
        told = "".join(f"{change}; " for change in case.spec_changes)
        message = f"{told}{explain.load_text(d)}: {move}{tail}"
        return adopt(case, models, levels, pool.served, prices, reason, message, d)
    if repriced(state.plan, prices, settings):
        models, levels = keep(case)
        old = state.plan.price if state.plan else 0.0
        message = (
            f"{explain.load_text(d)}: a worker-second is worth {prices.price:.4f} of an image's "
            f"quality, it was {old:.4f}{tail}"
        )
        reason = Reason.PRICE_UPDATED
        return adopt(case, models, levels, pool.served, prices, reason, message, d)
    return _stay(case, wish, f"{explain.load_text(d)}{tail}", d, instance.unreachable)


def _level_wish(case: Case, instance: Instance, pool: Pooled) -> Wish:
    """The move of levels that would be an improvement.

    Levels are preferences, so they need not fit the load exactly: none move before a share of the workers is
    at others than the best split has; all go back to K = 0 where even a load at the edge of the data leaves
    room.
    """
    settings = case.settings
    # A mix made on little data may skip steps that a calm load has no need of: that is looked at again.
    idling = pool.price <= 0 and _skipping(case)
    if not (case.made_for_other or idling or _demand_moved(case)):
        return NOTHING
    wish = _level_try(case, instance.problem, pool, settings.level_band)
    idle = False
    if wish.direction is not Direction.FASTER and _skipping(case):
        cautious = max(case.forecast.cautious, instance.problem.rate)
        problem = replace(instance.problem, rate=cautious)
        calm = pooled(problem)
        idle = calm.price <= 0
        if idle or wish.direction is Direction.SLOWER:
            # Back to quality only where the mix would also carry a load at the edge of what the data allows.
            band = 0.0 if idle else settings.level_band
            wish = _level_try(case, problem, calm, band)
            if wish.direction is not Direction.SLOWER:
                wish = NOTHING
    return wish


def _skipping(case: Case) -> bool:
    """Whether workers of the service's own model are assigned to skip steps."""
    return any(level for (_, model, level, _) in case.kinds if not model)


def _level_try(case: Case, problem: Problem, pool: Pooled, band: float) -> Wish:
    settings = case.settings
    size = sum(map(sum, problem.held))
    if not case.made_for_other and _misfit(problem, pool) < max(band * size, 0.5):
        return NOTHING
    leaning = _leaning(problem, pool)
    if leaning is not Direction.NONE and not case.made_for_other and not _due(case, leaning):
        # There is no need to solve for what is not granted yet.
        return Wish(leaning, None, None, gate.Verdict(True, math.inf, "not weighed yet"))
    problem = _costed(case, problem, pool)
    limit = settings.solver_limit_s
    stay = held(problem, limit)
    goal = best(problem, stay, pool.objective, limit)
    direction = direction_of(problem, stay, goal)
    cost = problem.change_cost(goal.workers)
    if goal.switches < max(1.0, band * size):
        direction = Direction.NONE
    if direction is Direction.NONE:
        return replace(NOTHING, stay=stay)
    return weighed(problem, stay, goal, cost, settings.gate_threshold)


def _demand_moved(case: Case) -> bool:
    """Whether the rate is another than the one that the mix was made for, beyond what chance explains.

    Levels are preferences: noise is no reason to move them. Both rates are Poisson counts over their time. A
    mix whose rate is not settled, the first one too, is made for none yet.
    """
    if case.forecast.jumped or case.state.rate_count <= 0:
        return True
    now, before = case.forecast.mean, case.state.rate
    count = max(1.0, case.state.forecast.count)
    spread = math.sqrt(now * now / count + before * before / case.state.rate_count)
    return abs(now - before) > _MOVED_DEVIATIONS * spread


def _leaning(problem: Problem, pool: Pooled) -> Direction:
    """Which way the best split of the load lies, by the images per second that its levels would serve."""
    target = _target(problem, pool)
    before = speed(problem, problem.current)
    after = speed(problem, target)
    if abs(after - before) <= 1e-9 * max(before, after):
        return Direction.NONE
    return Direction.FASTER if after > before else Direction.SLOWER


def _due(case: Case, direction: Direction) -> bool:
    """Whether one more plan that asks for this direction would be granted."""
    hysteresis = case.state.hysteresis
    agreed = hysteresis.agreed + 1 if hysteresis.asking is direction else 1
    return agreed >= gate.needed(hysteresis, direction, case.settings)


def _target(problem: Problem, pool: Pooled) -> Table:
    """Workers (a fraction counts) at each [device class][variant] by the best split of the load.

    What a pool does not need stays at its slowest level.
    """
    rows = []
    for d in range(len(problem.devices)):
        row = [
            pool.served[d][v] * problem.need_s(d, v) / problem.slack
            if pool.served[d][v] > 0
            else 0.0
            for v in range(len(problem.variants))
        ]
        for m in range(len(problem.models)):
            mine = [v for v in range(len(problem.variants)) if problem.model_of[v] == m]
            row[mine[0]] += max(0.0, problem.held[d][m] - sum(row[v] for v in mine))
        rows.append(tuple(row))
    return tuple(rows)


def _misfit(problem: Problem, pool: Pooled) -> float:
    """Workers (a fraction counts) whose level the best split of the load has no use for."""
    target = _target(problem, pool)
    return sum(
        max(0.0, now - wanted)
        for have, want in zip(problem.current, target, strict=True)
        for now, wanted in zip(have, want, strict=True)
    )


def _costed(case: Case, problem: Problem, pool: Pooled) -> Problem:
    """With the cost of a change of level; models stay."""
    level_cost, load_cost = change_costs(problem, pool.price, case.settings)
    return replace(problem, level_cost=level_cost, load_cost=load_cost, keep_models=True)


def _stay(
    case: Case, wish: Wish, load: str, d: Diagnostics, unreachable: bool
) -> tuple[Decision, PlannerState]:
    """Nothing changes: says why."""
    text = explain.mix_text(case.settings.variants, d.proposed)
    if d.model_direction != Direction.NONE and 0 < d.model_agreed < d.model_needed:
        message = (
            f"another mix of models asked for by {d.model_agreed} of {d.model_needed} plans "
            f"in a row: {load}"
        )
        return hold(case, Reason.AWAITING_AGREEMENT, message, d)
    if wish.direction is Direction.NONE and unreachable:
        return hold(case, Reason.SLO_UNREACHABLE, load, d)
    if wish.direction is Direction.NONE and d.shed > 0:
        return hold(case, Reason.OVERLOADED, f"no mix carries more: {load}", d)
    if wish.direction is Direction.NONE:
        return hold(case, Reason.STEADY, f"the mix fits: {load}", d)
    if not wish.verdict.passes:
        message = (
            f"mix {text} is not worth the move (score {wish.verdict.score:.2f}, {wish.verdict.why}): "
            f"{load}"
        )
        return hold(case, Reason.NOT_WORTH_IT, message, d)
    message = f"mix {text} asked for by {d.agreed} of {d.needed} plans in a row: {load}"
    return hold(case, Reason.AWAITING_AGREEMENT, message, d)


def _move_reason(case: Case, direction: Direction, d: Diagnostics, unreachable: bool) -> Reason:
    if unreachable:
        return Reason.SLO_UNREACHABLE
    if case.fleet_changed:
        return Reason.FLEET_CHANGED
    if d.shed > 0:
        return Reason.OVERLOADED
    rose = d.rate_mean > case.state.rate
    if direction is Direction.FASTER:
        return Reason.LOAD_ROSE if rose else Reason.REBALANCED
    return Reason.REBALANCED if rose else Reason.LOAD_FELL


def _doubt(case: Case, unreachable: bool) -> str:
    if unreachable:
        seconds = case.settings.latency_s
        return f"; no level meets the deadline of {seconds:g} s even on an idle worker"
    known = case.forecast.classes or case.forecast.mean <= 0
    return "" if known else "; no prompt classes reported, so only K=0 is reckoned with"


def _instance(case: Case, rate: float) -> Instance:
    return instance_of(
        rate,
        case.forecast.classes,
        case.state.forecast.last,
        case.members,
        dict(case.state.profiles),
        case.settings,
    )


def _figures(case: Case, instance: Instance, pool: Pooled, d: Diagnostics) -> Diagnostics:
    problem = instance.problem
    work, bound = problem.work_s[0], problem.bound[0]
    size = len(case.members)
    return replace(
        d,
        batch=instance.batch,
        work_s=work,
        bound=bound,
        capacity=tuple(size * b / w for b, w in zip(bound, work, strict=True)),
        slack=problem.slack,
        price=pool.price,
        utilisation=pool.utilisation,
        pools=tuple(
            (problem.devices[i], problem.models[m], problem.held[i][m]) for i, m in problem.pools
        ),
        shed=pool.shed,
        quality=pool.quality,
    )


def _serving(case: Case, problem: Problem, models: Mapping[str, str] | None = None) -> Problem:
    """Only with the workers that serve now and go on to: those that load, or will under other `models`, are
    missing.
    """
    kinds = case.kinds
    if models is not None:
        kinds = kinds_of([m for m in case.members if models.get(m.name) == m.model])
    return replace(problem, held=held_of(kinds, problem.devices, problem.models, ready=True))


def _by_variant(counts: Counts) -> tuple[int, ...]:
    return tuple(map(sum, zip(*counts, strict=True)))
