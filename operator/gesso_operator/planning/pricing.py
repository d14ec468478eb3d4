"""What the plan tells the routers about worth: the price, what each pool's second is worth, and the
price's curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gesso.plan import Plan, PromptClass, QualityCurve
from gesso.profile import Profile
from gesso_operator.planning.capacity import working_batch
from gesso_operator.planning.instance import Profiles, own_profile
from gesso_operator.planning.pooled import Pooled
from gesso_operator.planning.price_curve import PricedPool, price_curve
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.settings import Settings

#: Routers keep a margin to the deadline: of about a twentieth where estimates are good.
_DEADLINE_SHARE = 0.95
_LEAST_WORK_SHARE = 0.01
_DIGITS = 2
_WEIGHT_STEP = 0.025


@dataclass(frozen=True)
class Prices:
    """The fields of `Plan` that carry prices."""

    price: float = 0.0
    device_worth: tuple[tuple[str, float], ...] = ()
    price_curve: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, plan: Plan | None) -> Prices:
        """Those of a plan; none without."""
        if plan is None:
            return cls()
        return cls(plan.price, plan.device_worth, plan.price_curve)


def priced(
    problem: Problem, pool: Pooled, profiles: Profiles, rate: float, settings: Settings
) -> Prices:
    """Prices of a plan that is adopted or priced again; the one place where a plan's prices are made.

    `rate` is the expected one, images/s: unlike the mix, the curve reckons with chance by itself.
    """
    worth = _worths(problem, pool)
    own = own_profile(profiles, problem.devices)
    speeds = _speeds(own, settings) if own is not None else (1.0,)
    # Where every worker holds another model there is nothing to skip, hence nothing to price.
    held = any(row[0] for row in problem.held)
    curve = price_curve(_own_pool(problem, worth, rate, speeds, settings)) if held else ()
    return Prices(price=pool.price, device_worth=worth, price_curve=curve)


def _speeds(profile: Profile, settings: Settings) -> tuple[float, ...]:
    """Throughput of a worker by images on it, up to the batch allowed, over that of its working batch."""
    at = working_batch(profile, settings)
    best = at / profile.tick_seconds(at)
    most = max(at, min(profile.max_batch, settings.max_batch))
    return tuple(_rounded(j / profile.tick_seconds(j) / best, _DIGITS) for j in range(1, most + 1))


def _own_pool(
    problem: Problem,
    worth: tuple[tuple[str, float], ...],
    rate: float,
    speeds: tuple[float, ...],
    settings: Settings,
) -> PricedPool:
    """The workers of the service's own model as one pool, other models that are held as a way out of it.

    An image on another model takes as many of the average own worker's seconds as its own are worth, at least
    a hundredth of a full image's. Rounded, so that the curve is made anew only when something changed.
    """
    held = [(problem.held[d][0], problem.work_s[d]) for d in range(len(problem.devices))]
    count = sum(n for n, _ in held)
    by_model = dict(worth)
    work = []
    for v, m in enumerate(problem.model_of):
        if m == 0:
            speed = sum(n / row[v] for n, row in held if n)
            work.append(count / speed if speed > 0 else math.inf)
            continue
        there = [d for d in range(len(problem.devices)) if problem.held[d][m] > 0]
        if there and work and math.isfinite(work[0]):
            seconds = min(problem.work_s[d][v] for d in there)
            least = _LEAST_WORK_SHARE * work[0]
            work.append(max(least, by_model.get(problem.models[m], 0.0) * seconds))
        else:
            work.append(math.inf)
    usable = [v for v, w in enumerate(work) if math.isfinite(w)]
    return PricedPool(
        workers=float(count),
        rate=_rounded(rate, _DIGITS),
        work_s=tuple(_rounded(work[v], 4) for v in usable),
        classes=tuple(
            PromptClass(
                c.name,
                round(c.weight / _WEIGHT_STEP) * _WEIGHT_STEP,
                QualityCurve(
                    tuple(range(len(usable))), tuple(round(c.curve.quality[v], 3) for v in usable)
                ),
            )
            for c in problem.classes
        ),
        deadline_s=settings.latency_s * _DEADLINE_SHARE,
        penalty=problem.shed_penalty,
        min_quality=problem.min_quality,
        speeds=speeds,
    )


def _rounded(value: float, digits: int) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def repriced(plan: Plan | None, prices: Prices, settings: Settings) -> bool:
    """Whether a price, or a pool's worth, moved so far from the plan's that the routers should know."""
    old = plan.price if plan else 0.0
    if _moved(old, prices.price, settings) or _bent(plan, prices, settings):
        return True
    before = dict(plan.device_worth) if plan else {}
    return prices.price > 0 and any(
        _moved(before.get(name, 1.0), worth, settings) for name, worth in prices.device_worth
    )


def _bent(plan: Plan | None, prices: Prices, settings: Settings) -> bool:
    """Whether the price curve moved, on average over the backlogs at which it does not yet only prevent
    refusals.
    """
    before, after = plan.price_curve if plan else (), prices.price_curve
    if len(before) != len(after):
        return True
    low = range(len(after) * 3 // 4)
    change = sum(abs(after[i][1] - before[i][1]) for i in low)
    return change > settings.reprice_share * max(1e-6, sum(before[i][1] for i in low))


def _moved(old: float, new: float, settings: Settings) -> bool:
    return abs(new - old) > settings.reprice_share * max(abs(new), abs(old), 1e-6)


def _worths(problem: Problem, pool: Pooled) -> tuple[tuple[str, float], ...]:
    """Worth of a second of each device class of the own model, where there are several, and of each other
    model that is held, relative to the own model's average second.
    """
    worth = dict(pool.worth)
    found: list[tuple[str, float]] = []
    own = [d for d in range(len(problem.devices)) if problem.held[d][0] > 0]
    if len(own) > 1:
        count = sum(problem.held[d][0] for d in own)
        speed = {d: 1.0 / problem.work_s[d][0] for d in own}
        mean = sum(problem.held[d][0] * speed[d] for d in own) / count
        for d in own:
            name = problem.devices[d]
            if pool.price > 0:
                found.append((name, worth.get((name, ""), 0.0) / pool.price))
            else:
                # Nothing is scarce: by speed, as a full image counts the same wherever it is made.
                found.append((name, speed[d] / mean))
    for m, model in enumerate(problem.models[1:], 1):
        holders = [d for d in range(len(problem.devices)) if problem.held[d][m] > 0]
        if holders:
            count = sum(problem.held[d][m] for d in holders)
            value = sum(
                problem.held[d][m] * worth.get((problem.devices[d], model), 0.0) for d in holders
            )
            found.append((model, value / count / pool.price if pool.price > 0 else 0.0))
    return tuple(found)
