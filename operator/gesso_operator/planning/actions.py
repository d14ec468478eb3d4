"""What a decision does: adopts a new plan, holds the one in force, or only watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gesso.plan import LevelPlan, Plan
from gesso_operator.planning.case import Case, PlannerState
from gesso_operator.planning.explain import FROZEN, Decision, Diagnostics, Reason, count_text
from gesso_operator.planning.instance import Member
from gesso_operator.planning.pricing import Prices
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.solve import Served


def adopt(
    case: Case,
    models: Mapping[str, str],
    levels: Mapping[str, int],
    served: Served | None,
    prices: Prices,
    reason: Reason,
    message: str,
    d: Diagnostics,
) -> tuple[Decision, PlannerState]:
    """A new plan. `served` images/s by [device class][variant], None: shares go by workers."""
    state = case.state
    plan = Plan(
        revision=case.revision,
        made_at_s=case.now_s,
        levels=_levels(case.members, case.devices, case.settings, models, levels, served),
        price=prices.price,
        reason=reason.value,
        message=message,
        price_curve=prices.price_curve,
        device_worth=prices.device_worth,
    )
    before = {m.name: (m.model, m.level) for m in case.members}
    switches = sum(
        1
        for name, (model, level) in before.items()
        if model != models[name] or level not in (None, levels[name])
    )
    mix_changed = state.plan is None or state.plan.mix_text != plan.mix_text
    state = replace(
        state,
        plan=plan,
        levels=tuple(sorted({**dict(state.levels), **levels}.items())),
        models=tuple(sorted({**dict(state.models), **models}.items()))
        if case.settings.models
        else (),
        asked=case.settings.asked,
        rate=case.forecast.mean if mix_changed else state.rate,
        rate_count=(state.forecast.count if case.settled else 0.0)
        if mix_changed
        else state.rate_count,
    )
    ready = {m.name for m in case.members if m.ready}
    decision = Decision(
        plan,
        plan,
        True,
        reason,
        message,
        {name: k for name, k in levels.items() if name in ready},
        switches,
        d,
        dict(models) if case.settings.models else {},
    )
    return decision, state


def hold(case: Case, reason: Reason, message: str, d: Diagnostics) -> tuple[Decision, PlannerState]:
    """The plan in force stays; its levels are given again, for repair.

    Where someone has seen a later revision (an operator that restarted blind), it goes out again above it.
    """
    levels = {m.name: m.level for m in case.members if m.ready and m.level is not None}
    models = {m.name: m.model for m in case.members} if case.settings.models else {}
    plan, state = case.state.plan, case.state
    overtaken = plan is not None and case.revision > plan.revision + 1
    if plan is not None and overtaken and case.settings.mode == "Auto":
        plan = replace(plan, revision=case.revision)
        state = replace(state, plan=plan)
    changed = plan is not case.state.plan
    if plan is None:
        levels, models = {}, {}
    decision = Decision(
        plan,
        plan,
        changed,
        reason,
        message,
        levels,
        0,
        d,
        models,
        data_missing=reason in FROZEN,
    )
    return decision, state


def keep(case: Case) -> tuple[dict[str, str], dict[str, int]]:
    """Model and level of each worker as they are; K = 0 for one that has no level."""
    return (
        {m.name: m.model for m in case.members},
        {m.name: m.level if m.level is not None else 0 for m in case.members},
    )


def without_data(
    case: Case, reason: Reason, why: str, d: Diagnostics
) -> tuple[Decision, PlannerState]:
    """Freezes the plan; only workers that have no level yet are given one (K = 0)."""
    if case.fleet_changed and case.state.plan is not None:
        models, levels = keep(case)
        message = f"the fleet has {count_text(len(levels))}; levels and price are kept, since {why}"
        prices = Prices.of(case.state.plan)
        decision, state = adopt(
            case, models, levels, None, prices, Reason.FLEET_CHANGED, message, d
        )
        return replace(decision, data_missing=reason in FROZEN), state
    return hold(case, reason, f"the plan is frozen: {why}", d)


def passive(case: Case, wanted: Decision | None) -> tuple[Decision, PlannerState]:
    """Modes Recommend and Off: the router learns its workers at the levels they have; no level is changed."""
    state, settings = case.state, case.settings
    mode = settings.mode
    reason = Reason.RECOMMENDED if wanted else Reason.MODE_OFF
    message = f"mode {mode}: workers keep their levels"
    if wanted:
        message += f"; recommended: {wanted.message}"
    seen = {w.name: w for w in case.views}
    known = {m.name for m in settings.models}
    members = tuple(
        m._replace(model=seen[m.name].model if seen[m.name].model in known else "")
        for m in case.members
        if m.ready
    )
    models = {m.name: m.model for m in members}
    levels = {
        m.name: k
        if not m.model and (k := seen[m.name].skipped_steps) in settings.ladder and k is not None
        else 0
        for m in members
    }
    rows = _levels(members, case.devices, settings, models, levels, None)
    base = state.base
    changed = bool(members) and (base is None or _workers(base.levels) != _workers(rows))
    if changed:
        told = f"mode {mode}: {count_text(len(levels))} at the levels they have"
        base = Plan(case.revision, case.now_s, rows, 0.0, reason.value, told)
        state = replace(state, base=base)
    return Decision(
        plan=base,
        wanted=wanted.wanted if wanted else None,
        changed=changed,
        reason=reason,
        message=message,
        diagnostics=wanted.diagnostics if wanted else Diagnostics(workers=case.ready),
        data_missing=wanted is not None and wanted.data_missing,
    ), state


def _workers(levels: Sequence[LevelPlan]) -> dict[tuple[str, str, int], int]:
    return {(p.device, p.model, p.skipped_steps): p.workers for p in levels if p.workers}


def _levels(
    members: Sequence[Member],
    devices: Sequence[str],
    settings: Settings,
    models: Mapping[str, str],
    levels: Mapping[str, int],
    served: Served | None,
) -> tuple[LevelPlan, ...]:
    """The plan's levels; without known service, or without load, shares go by workers."""
    counts = Counter((m.device, models[m.name], levels[m.name]) for m in members)
    total = sum(map(sum, served)) if served else 0.0
    size = len(members) or 1
    rows = []
    for d, device in enumerate(devices):
        for v, (model, k) in enumerate(settings.variants):
            n = counts[device, model, k]
            share = served[d][v] / total if served and total > 0 else n / size
            name = device if len(devices) > 1 else ""
            rows.append(LevelPlan(k, n, share, model, name))
    return tuple(rows)
