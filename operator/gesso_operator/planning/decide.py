"""The loop's core: one observation in, one decision and the next state out.

observe -> forecast -> solve -> gate -> hysteresis -> explain. The live loop and the simulator both call
`decide`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gesso.plan import LevelPlan, Plan
from gesso.profile import Profile
from gesso_operator.planning import explain, gate
from gesso_operator.planning.assign import assign, mix_of
from gesso_operator.planning.explain import Decision, Diagnostics, Reason
from gesso_operator.planning.forecast import DataState, Forecast, ForecastState, update
from gesso_operator.planning.gate import Direction, HysteresisState
from gesso_operator.planning.instance import fleet_profile, problem_of
from gesso_operator.planning.observation import Observation, WorkerView
from gesso_operator.planning.queueing import working_batch
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import Problem, Solution, SolverError, best, held, pooled

_DATA_REASONS = {
    DataState.MISSING: (Reason.NO_REPORT, "the router does not report"),
    DataState.STALE: (Reason.STALE_REPORT, "the router's report is old"),
    DataState.WARMING_UP: (Reason.WARMING_UP, "one report so far, no rate yet"),
}


@dataclass(frozen=True)
class PlannerState:
    """What the planner remembers between two decisions; start from `PlannerState()`.

    `plan` is the last plan made, `base` the plan in force where plans are not acted on, `levels` the level
    last given to each worker by name (also of workers that are away), `rate` the mean rate when the mix last
    changed.
    """

    plan: Plan | None = None
    base: Plan | None = None
    levels: tuple[tuple[str, int], ...] = ()
    forecast: ForecastState = field(default_factory=ForecastState)
    hysteresis: HysteresisState = field(default_factory=HysteresisState)
    profile: Profile | None = None
    rate: float = 0.0


@dataclass(frozen=True)
class _Case:
    """One call's inputs, after the first look at them."""

    now_s: float
    settings: Settings
    state: PlannerState
    forecast: Forecast
    ready: tuple[WorkerView, ...]
    current: Mapping[str, int | None]
    revision: int

    @property
    def counts(self) -> tuple[int, ...]:
        return mix_of(self.current, self.settings.ladder)

    @property
    def fleet_changed(self) -> bool:
        plan = self.state.plan
        planned = sum(level.workers for level in plan.levels) if plan else -1
        return planned != len(self.ready) or sum(self.counts) != len(self.ready)


def decide(
    observation: Observation, state: PlannerState, settings: Settings
) -> tuple[Decision, PlannerState]:
    """The next decision and the state to pass in next time. Never raises on missing or odd data: it holds."""
    memory, forecast = update(state.forecast, observation.report, observation.now_s, settings)
    ready = tuple(w for w in observation.workers if w.ready)
    state = replace(state, forecast=memory, profile=fleet_profile(ready, settings) or state.profile)
    levels = dict(state.levels)
    current: dict[str, int | None] = {}
    for worker in ready:
        seen = worker.skipped_steps if worker.assigned_revision > 0 else None
        level = levels.get(worker.name, seen)
        current[worker.name] = level if level in settings.ladder else None
    case = _Case(
        observation.now_s, settings, state, forecast, ready, current, _revision(observation, state)
    )
    if settings.policy == "ClipperHA":
        return _fixed(case)
    if settings.mode == "Off":
        return _passive(case, None)
    if settings.mode == "Recommend":
        wanted, state = _plan(case)
        return _passive(replace(case, state=state, revision=case.revision + 1), wanted)
    return _plan(case)


def _plan(case: _Case) -> tuple[Decision, PlannerState]:
    state = case.state
    diagnostics = Diagnostics(
        workers=len(case.ready),
        data=case.forecast.data.value,
        rate_mean=case.forecast.mean,
        rate_upper=case.forecast.upper,
        rate_cautious=case.forecast.cautious,
        jumped=case.forecast.jumped,
        current=case.counts,
        reversals=state.hysteresis.reversals,
    )
    if not case.ready:
        return _hold(case, Reason.NO_READY_WORKERS, "no worker is ready", diagnostics)
    if state.plan is None:
        levels = {name: k if k is not None else 0 for name, k in case.current.items()}
        message = f"first plan for {len(levels)} workers, before any load was seen"
        return _adopt(case, levels, None, 0.0, Reason.INITIAL_PLAN, message, diagnostics)
    if case.forecast.data is not DataState.READY:
        return _without_data(case, *_DATA_REASONS[case.forecast.data], diagnostics)
    if state.profile is None:
        return _without_data(case, Reason.NO_PROFILE, "no worker has measured itself", diagnostics)
    try:
        return _solved(case, state.profile, diagnostics)
    except SolverError as error:
        return _without_data(case, Reason.SOLVER_FAILED, f"the solver failed: {error}", diagnostics)


def _solved(case: _Case, profile: Profile, d: Diagnostics) -> tuple[Decision, PlannerState]:
    state, settings = case.state, case.settings
    limit = settings.solver_limit_s
    problem, unreachable = problem_of(
        case.forecast, state.forecast.last, case.counts, len(case.ready), profile, settings
    )
    pool = pooled(problem)
    # A worker-second lost is worth the price; a little even when capacity is plenty, so that no move is free.
    value = max(pool.price, settings.least_price_share / problem.work_s[0])
    cost = problem.work_s[0] * value / settings.payback_s
    problem = replace(problem, switch_cost=cost)
    stay = held(problem, limit)
    goal = best(problem, stay, pool, limit)
    direction = _direction(problem, stay, goal)
    if direction is Direction.SLOWER:
        # Back to quality only where the mix would also carry a load at the edge of what the data allows.
        problem = replace(problem, rate=max(case.forecast.cautious, problem.rate))
        stay = held(problem, limit)
        goal = best(problem, stay, pooled(problem), limit)
        if _direction(problem, stay, goal) is not Direction.SLOWER:
            direction, goal = Direction.NONE, stay
    scale = max(problem.rate, 1e-9)
    benefit = (goal.objective + cost * goal.switches - stay.objective) / scale
    disruption = cost * goal.switches / scale
    verdict = gate.worth(benefit, disruption, settings.gate_threshold)
    wish = direction if verdict.passes else Direction.NONE
    hysteresis, granted = gate.ask(state.hysteresis, wish, case.forecast.jumped, settings)
    chosen = goal if granted else stay
    d = replace(
        d,
        batch=working_batch(profile, settings),
        work_s=problem.work_s,
        bound=problem.bound,
        capacity=tuple(
            len(case.ready) * b / w for b, w in zip(problem.bound, problem.work_s, strict=True)
        ),
        slack=problem.slack,
        price=pool.price,
        utilisation=pool.utilisation,
        proposed=goal.workers,
        shed=pool.shed,
        quality=chosen.quality_sum / sum(chosen.served) if sum(chosen.served) > 0 else 0.0,
        objective=goal.objective,
        objective_held=stay.objective,
        benefit_share=benefit,
        disruption_share=disruption,
        direction=direction.value,
        agreed=hysteresis.agreed,
        needed=gate.needed(hysteresis, direction, settings),
        reversals=hysteresis.reversals,
    )
    reason = _move_reason(case, direction, d, unreachable)
    if granted:
        hysteresis = gate.moved(hysteresis, direction, settings)
    case = replace(case, state=replace(state, hysteresis=hysteresis))
    before, after = (explain.mix_text(settings.ladder, m) for m in (d.current, chosen.workers))
    move = f"mix {before} to {after}" if after != before else f"mix {after} stays"
    tail = f"{explain.quality_text(d)}{explain.shed_text(d)}{_doubt(case, unreachable)}"
    if granted or case.fleet_changed:
        levels = assign(case.current, dict(zip(settings.ladder, chosen.workers, strict=True)))
        if not granted:
            reason = Reason.FLEET_CHANGED
        message = f"{explain.load_text(d)}: {move}{tail}"
        return _adopt(case, levels, chosen, pool.price, reason, message, d)
    if _repriced(state.plan, pool.price, settings):
        levels = {name: k for name, k in case.current.items() if k is not None}
        old = state.plan.price if state.plan else 0.0
        message = (
            f"{explain.load_text(d)}: a worker-second is worth {pool.price:.4f} of an image's quality, "
            f"it was {old:.4f}{tail}"
        )
        return _adopt(case, levels, chosen, pool.price, Reason.PRICE_UPDATED, message, d)
    return _stay(case, direction, verdict, f"{explain.load_text(d)}{tail}", d, unreachable)


def _stay(
    case: _Case,
    direction: Direction,
    verdict: gate.Verdict,
    load: str,
    d: Diagnostics,
    unreachable: bool,
) -> tuple[Decision, PlannerState]:
    """Nothing changes: says why."""
    wish = explain.mix_text(case.settings.ladder, d.proposed)
    if direction is Direction.NONE and unreachable:
        return _hold(case, Reason.SLO_UNREACHABLE, load, d)
    if direction is Direction.NONE and d.shed > 0:
        return _hold(case, Reason.OVERLOADED, f"no mix carries more: {load}", d)
    if direction is Direction.NONE:
        return _hold(case, Reason.STEADY, f"the mix fits: {load}", d)
    if not verdict.passes:
        message = (
            f"mix {wish} is not worth the move (score {verdict.score:.2f}, {verdict.why}): {load}"
        )
        return _hold(case, Reason.NOT_WORTH_IT, message, d)
    message = f"mix {wish} asked for by {d.agreed} of {d.needed} plans in a row: {load}"
    return _hold(case, Reason.AWAITING_AGREEMENT, message, d)


def _direction(problem: Problem, stay: Solution, goal: Solution) -> Direction:
    """Which way `goal` goes from `stay`, by the images per second that the mix can serve."""
    if goal.workers == stay.workers:
        return Direction.NONE
    rates = [1.0 / w for w in problem.work_s]
    before = sum(n * r for n, r in zip(stay.workers, rates, strict=True))
    after = sum(n * r for n, r in zip(goal.workers, rates, strict=True))
    return Direction.FASTER if after > before * (1 + 1e-9) else Direction.SLOWER


def _move_reason(case: _Case, direction: Direction, d: Diagnostics, unreachable: bool) -> Reason:
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


def _doubt(case: _Case, unreachable: bool) -> str:
    if unreachable:
        seconds = case.settings.latency_s
        return f"; no level meets the deadline of {seconds:g} s even on an idle worker"
    known = case.forecast.classes or case.forecast.mean <= 0
    return "" if known else "; no prompt classes reported, so only K=0 is reckoned with"


def _repriced(plan: Plan | None, price: float, settings: Settings) -> bool:
    old = plan.price if plan else 0.0
    return abs(price - old) > settings.reprice_share * max(abs(price), abs(old), 1e-6)


def _without_data(
    case: _Case, reason: Reason, why: str, d: Diagnostics
) -> tuple[Decision, PlannerState]:
    """Freezes the plan; only workers that have no level yet are given one (K = 0)."""
    if case.fleet_changed and case.state.plan is not None:
        levels = {name: k if k is not None else 0 for name, k in case.current.items()}
        message = f"the fleet has {len(levels)} workers; levels and price are kept, since {why}"
        return _adopt(case, levels, None, case.state.plan.price, Reason.FLEET_CHANGED, message, d)
    return _hold(case, reason, f"the plan is frozen: {why}", d)


def _fixed(case: _Case) -> tuple[Decision, PlannerState]:
    """The baseline Clipper-HA: K = 0 everywhere, always."""
    d = Diagnostics(
        workers=len(case.ready), data=case.forecast.data.value, rate_mean=case.forecast.mean
    )
    if not case.ready:
        return _hold(case, Reason.NO_READY_WORKERS, "no worker is ready", d)
    plan = case.state.plan
    message = f"policy ClipperHA: {len(case.ready)} workers at K=0"
    if plan is not None and plan.price == 0 and plan.mix == {0: len(case.ready)}:
        return _hold(case, Reason.FIXED_POLICY, message, d)
    levels = {w.name: 0 for w in case.ready}
    return _adopt(case, levels, None, 0.0, Reason.FIXED_POLICY, message, d)


def _passive(case: _Case, wanted: Decision | None) -> tuple[Decision, PlannerState]:
    """Modes Recommend and Off: the router learns its workers at the levels they have; no level is changed."""
    state, ladder = case.state, case.settings.ladder
    mode = case.settings.mode
    reason = Reason.RECOMMENDED if wanted else Reason.MODE_OFF
    message = f"mode {mode}: workers keep their levels"
    if wanted:
        message += f"; recommended: {wanted.message}"
    levels = {w.name: w.skipped_steps if w.skipped_steps in ladder else 0 for w in case.ready}
    counts = mix_of(levels, ladder)
    changed = bool(case.ready) and (state.base is None or state.base.mix != _mix(ladder, counts))
    if changed:
        told = f"mode {mode}: {len(levels)} workers at the levels they have"
        base = Plan(
            case.revision, case.now_s, _levels(ladder, counts, None), 0.0, reason.value, told
        )
        state = replace(state, base=base)
    return Decision(
        plan=state.base,
        wanted=wanted.wanted if wanted else None,
        changed=changed,
        reason=reason,
        message=message,
        diagnostics=wanted.diagnostics if wanted else Diagnostics(workers=len(case.ready)),
    ), state


def _adopt(
    case: _Case,
    levels: Mapping[str, int],
    solution: Solution | None,
    price: float,
    reason: Reason,
    message: str,
    d: Diagnostics,
) -> tuple[Decision, PlannerState]:
    """A new plan."""
    ladder, state = case.settings.ladder, case.state
    counts = mix_of(levels, ladder)
    plan = Plan(
        case.revision, case.now_s, _levels(ladder, counts, solution), price, reason.value, message
    )
    switches = sum(1 for n, k in levels.items() if case.current[n] not in (None, k))
    mix_changed = state.plan is None or state.plan.mix != plan.mix
    state = replace(
        state,
        plan=plan,
        levels=tuple(sorted({**dict(state.levels), **levels}.items())),
        rate=case.forecast.mean if mix_changed else state.rate,
    )
    return Decision(plan, plan, True, reason, message, dict(levels), switches, d), state


def _hold(
    case: _Case, reason: Reason, message: str, d: Diagnostics
) -> tuple[Decision, PlannerState]:
    """The plan in force stays; its levels are given again, for repair.

    Where someone has seen a later revision (an operator that restarted blind), it goes out again above it.
    """
    levels = {name: k for name, k in case.current.items() if k is not None}
    plan, state = case.state.plan, case.state
    overtaken = plan is not None and case.revision > plan.revision + 1
    if plan is not None and overtaken and case.settings.mode == "Auto":
        plan = replace(plan, revision=case.revision)
        state = replace(state, plan=plan)
    changed = plan is not case.state.plan
    return Decision(plan, plan, changed, reason, message, levels if plan else {}, 0, d), state


def _levels(
    ladder: tuple[int, ...], counts: tuple[int, ...], solution: Solution | None
) -> tuple[LevelPlan, ...]:
    """The plan's levels; without a solution, or without load, shares go by workers."""
    served = solution.served if solution and sum(solution.served) > 0 else tuple(map(float, counts))
    total = sum(served) or 1.0
    return tuple(LevelPlan(k, n, x / total) for k, n, x in zip(ladder, counts, served, strict=True))


def _mix(ladder: tuple[int, ...], counts: tuple[int, ...]) -> dict[int, int]:
    return {k: n for k, n in zip(ladder, counts, strict=True) if n}


def _revision(observation: Observation, state: PlannerState) -> int:
    """A revision above every one that anyone has seen, so that a restarted operator is not refused."""
    seen = [w.assigned_revision for w in observation.workers]
    seen += [p.revision for p in (state.plan, state.base) if p]
    if observation.report:
        seen.append(observation.report.plan_revision)
    return max(seen, default=0) + 1
