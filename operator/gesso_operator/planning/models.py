"""Which model each worker should hold: loading one takes tens of seconds, so it needs a reason that lasts.

What must be served decides first, at the upper quantile of the rate, or the rate to expect when a load would be
over: where the models that are held would refuse some of it, others are loaded at once. What bursts may come is
no reason: levels absorb most of one, and a model held for all of them costs more. Otherwise quality decides, at
the expected rate and with workers as busy as can be, since levels absorb the rest; such a move waits until it
has been asked for often enough, either way. The way back must also carry the cautious quantile.
"""

from __future__ import annotations

from dataclasses import replace

from gesso_operator.planning import gate
from gesso_operator.planning.case import Case
from gesso_operator.planning.explain import Diagnostics
from gesso_operator.planning.gate import Direction
from gesso_operator.planning.instance import change_costs
from gesso_operator.planning.pooled import pooled, relaxed
from gesso_operator.planning.problem import Counts, Problem
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import Solution, solve
from gesso_operator.planning.wish import NOTHING, Wish, weighed

#: Share of the load that may be refused before the models that are held count as too slow.
_REFUSED = 1e-4


def model_move(
    case: Case, problem: Problem, d: Diagnostics
) -> tuple[Case, Diagnostics, Solution | None]:
    """The goal, where it is granted; `problem` is the instance of now. Raises SolverError."""
    settings = case.settings
    # A backlog of the moment, say of the last load, is no reason to load.
    problem = replace(problem, slack=1.0)
    lead = max((s for _, _, s in settings.switch_s), default=0.0) + settings.interval_s
    rate = max(case.forecast.upper, case.forecast.ahead(lead))
    tight = replace(problem, rate=rate)
    # Whoever loads a model is missing meanwhile: it must begin while the others can still serve.
    urgent = refuses(_without_one(tight))
    if urgent:
        wish = _wish(tight, settings)
    else:
        wish = _wish(easy(problem, case.forecast.mean, settings), settings)
        if wish.direction is Direction.SLOWER and wish.goal is not None:
            # Back only where that carries what may come until there would be time to turn round again.
            later = case.forecast.ahead(2 * lead)
            rate = max(rate, case.forecast.cautious, later)
            if refuses(_holding(replace(problem, rate=rate), wish.goal.workers)):
                wish = NOTHING
    hysteresis, granted = gate.ask(
        case.state.model_hysteresis, wish.granted_way, case.forecast.jumped, settings, True, urgent
    )
    d = replace(
        d,
        rate_models=rate,
        model_benefit_share=wish.benefit,
        model_disruption_share=wish.disruption,
        model_direction=wish.direction.value,
        model_agreed=hysteresis.agreed,
        model_needed=gate.needed(hysteresis, wish.direction, settings, True, urgent),
        model_reversals=hysteresis.reversals,
    )
    if granted:
        hysteresis = gate.moved(hysteresis, wish.direction, settings)
    case = replace(case, state=replace(case.state, model_hysteresis=hysteresis))
    return case, d, wish.goal if granted else None


def refuses(problem: Problem) -> bool:
    """Whether the models that are held leave some of the load unserved."""
    return pooled(problem).shed > _REFUSED * problem.rate


def _without_one(problem: Problem) -> Problem:
    """One worker of the own model less, where there are several."""
    most = max(range(len(problem.devices)), key=lambda d: problem.held[d][0])
    if problem.held[most][0] < 2:
        return problem
    held = tuple(
        tuple(n - (d == most and m == 0) for m, n in enumerate(row))
        for d, row in enumerate(problem.held)
    )
    return replace(problem, held=held)


def easy(problem: Problem, rate: float, settings: Settings) -> Problem:
    """At the expected rate, with workers as busy as can be."""
    bound = tuple(
        tuple(settings.max_utilisation if b > 0 else 0.0 for b in row) for row in problem.bound
    )
    return replace(problem, rate=rate, bound=bound)


def _holding(problem: Problem, workers: Counts) -> Problem:
    """The same with so many workers at each [device class][variant], and the models that this takes."""
    held = tuple(
        tuple(
            sum(n for v, n in enumerate(row) if problem.model_of[v] == m)
            for m in range(len(problem.models))
        )
        for row in workers
    )
    return replace(problem, held=held, current=workers)


def _wish(problem: Problem, settings: Settings) -> Wish:
    """The move between models that would be an improvement."""
    pool = pooled(problem)
    _, load_cost = change_costs(problem, pool.price, settings)
    least = min((c for row in load_cost for c in row if c > 0), default=0.0)
    stays = problem.at_slowest()
    objective = pool.objective + problem.stray_of(stays)
    most = relaxed(problem) + problem.workers * max(problem.stray_values)
    # Where no mix could gain what the gate asks of one change, there is no search.
    if most - objective <= settings.gate_threshold * least + 1e-9 * (1 + abs(most)):
        return NOTHING
    # Levels follow once the models are chosen.
    problem = replace(problem, load_cost=load_cost, level_cost=0.0, mismatch_cost=0.0)
    goal = solve(problem, settings.solver_limit_s)
    if not any(n for row in problem.arrivals(goal.workers) for n in row):
        return NOTHING
    stay = Solution(stays, pool.served, pool.quality_sum, pool.shed, objective, 0)
    cost = problem.change_cost(goal.workers)
    return weighed(problem, stay, goal, cost, settings.gate_threshold)
