"""The price over the backlog: what it must be at the ends, in large pools, and against other ways to price."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning.price_curve import PricedPool, price_curve
from gesso_router.routing.price import plan_price_at

LADDER = (0, 5, 10, 15, 20, 25)
LOSS = (0.0, 0.03, 0.042, 0.056, 0.068, 0.085)
WORK = tuple(2.5 * (50 - k) / 50 for k in LADDER)
CLASSES = tuple(
    PromptClass(name, weight, QualityCurve(LADDER, tuple(1 - factor * x for x in LOSS)))
    for name, weight, factor in (("fragile", 0.3, 1.7), ("usual", 0.5, 0.9), ("robust", 0.2, 0.2))
)
POOL = PricedPool(workers=8, rate=3.5, work_s=WORK, classes=CLASSES, deadline_s=12.0)
FULL = 8 / WORK[0]


def price_at(curve: tuple[tuple[float, float], ...], backlog_s: float) -> float:
    """As routers read it."""
    return plan_price_at(curve, backlog_s).value


def test_an_idle_pool_costs_little_and_a_full_one_what_refusing_does() -> None:
    curve = price_curve(POOL)
    middle = price_at(curve, POOL.deadline_s / 2)
    assert 0 <= curve[0][1] < 0.1 * middle
    assert curve[-1][0] >= POOL.deadline_s - min(WORK) / 2
    # At that price no prompt is worth its seconds, not even at the fastest level.
    assert curve[-1][1] * float(np.median(WORK)) > POOL.penalty


@given(
    load=st.floats(0.05, 4.0),
    workers=st.integers(1, 4096),
    deadline=st.floats(2.6, 60.0),
    penalty=st.floats(0.5, 50.0),
)
@settings(max_examples=60, deadline=None)
def test_the_price_rises_with_the_backlog(
    load: float, workers: int, deadline: float, penalty: float
) -> None:
    rate = load * workers / WORK[0]
    curve = price_curve(
        replace(POOL, workers=workers, rate=rate, deadline_s=deadline, penalty=penalty)
    )
    backlogs, prices = zip(*curve, strict=True)
    assert all(math.isfinite(x) and x >= 0 for x in (*backlogs, *prices))
    assert list(backlogs) == sorted(set(backlogs))
    assert list(prices) == sorted(prices)


@pytest.mark.parametrize("load", [1.2, 1.5, 1.8])
def test_in_a_large_pool_it_is_about_the_dual_value_of_capacity(load: float) -> None:
    workers = 2000
    pool = replace(POOL, workers=workers, rate=load * workers / WORK[0])
    # The dual: the price at which the prompts ask for just the capacity there is.
    prices = np.linspace(0, 0.3, 30_001)
    quality = np.array([c.curve.quality for c in CLASSES])
    weight = np.array([c.weight for c in CLASSES])
    net = quality[None] - prices[:, None, None] * np.array(WORK)[None, None]
    asked = np.array(WORK)[net.argmax(2)] @ weight * pool.rate
    dual = prices[np.argmax(asked <= workers)]
    middle = price_at(price_curve(pool), 0.4 * pool.deadline_s)
    assert middle == pytest.approx(dual, rel=0.12)


def test_more_load_never_lowers_the_price() -> None:
    curves = [price_curve(replace(POOL, rate=load * FULL)) for load in (0.6, 0.9, 1.2, 1.5, 1.9)]
    for lighter, heavier in pairwise(curves):
        for (_, low), (_, high) in zip(lighter, heavier, strict=True):
            assert high >= low - 1e-3 * max(1.0, low)


def _gain(prices: list[float], step: float, rate: float, seed: int = 4) -> float:
    """Mean quality per prompt, refusals at their penalty, of a pool run by a price over the backlog."""
    rng = np.random.default_rng(seed)
    n, work = int(POOL.workers), np.array(WORK)
    free = np.zeros(n)
    now, total, count = 0.0, 0.0, 30_000
    gaps = rng.exponential(1 / rate, count)
    kinds = rng.choice(3, count, p=[c.weight for c in CLASSES])
    quality = np.array([c.curve.quality for c in CLASSES])
    for gap, kind in zip(gaps, kinds, strict=True):
        now += gap
        left = np.maximum(free - now, 0.0)
        price = prices[min(len(prices) - 1, int(left.sum() / n / step))]
        i = int(left.argmin())
        in_time = left[i] + work <= POOL.deadline_s
        if not in_time.any():
            total -= POOL.penalty
            continue
        k = int(np.where(in_time, quality[kind] - price * work, -np.inf).argmax())
        free[i] = now + left[i] + work[k]
        total += quality[kind, k]
    return total / count


@pytest.mark.parametrize("load", [0.9, 1.3])
def test_no_power_of_the_backlog_does_better(load: float) -> None:
    rate = load * FULL
    curve = price_curve(replace(POOL, rate=rate))
    step = POOL.deadline_s / 200
    at = [step * (i + 0.5) for i in range(200)]
    ours = _gain([price_at(curve, x) for x in at], step, rate)
    powers = [
        _gain([c / WORK[0] * (x / POOL.deadline_s) ** p for x in at], step, rate)
        for c in (0.5, 2.0, 6.0)
        for p in (1, 2, 4)
    ]
    assert ours >= max(powers) - 5e-4


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 0.0},
        {"workers": math.nan},
        {"rate": 0.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": -1.0},
        {"classes": ()},
        {"work_s": ()},
        {"deadline_s": 0.1},
        {"deadline_s": math.nan},
    ],
)
def test_where_there_is_nothing_to_price_there_is_no_curve(change: dict[str, object]) -> None:
    assert price_curve(replace(POOL, **change)) == ()  # type: ignore[arg-type]


#: A worker with one image does a third of what it does with a full batch.
SPEEDS = (0.35, 0.57, 0.71, 0.82, 0.89, 0.92, 0.98, 1.0)


def test_batches_are_priced_by_what_they_hold() -> None:
    pool = replace(POOL, workers=2, rate=0.5 * FULL / 4, deadline_s=25.0, speeds=SPEEDS)
    idle, busy = price_curve(pool), price_curve(replace(pool, rate=1.5 * FULL / 4))
    # What two full batches hold is no backlog yet.
    held = len(SPEEDS) * float(np.mean(WORK)) / 2
    assert price_at(idle, held) < 1e-3 < price_at(busy, held)
    # A batch in progress and the work of another fit between its own latency and the deadline.
    assert busy[-1][0] > pool.deadline_s - len(SPEEDS) * min(WORK)
    assert [p for _, p in busy] == sorted(p for _, p in busy)


def test_batches_that_do_not_save_are_as_dear_as_one_image_at_a_time() -> None:
    pool = replace(POOL, rate=1.2 * FULL, deadline_s=25.0)
    alone, shared = price_curve(pool), price_curve(replace(pool, speeds=(1.0, 1.0)))
    for backlog in (4.0, 8.0, 12.0):
        assert price_at(shared, backlog) == pytest.approx(price_at(alone, backlog), rel=0.15)


@pytest.mark.parametrize("speeds", [(), (0.0, 1.0), (math.nan,)])
def test_speeds_that_are_none_give_no_curve(speeds: tuple[float, ...]) -> None:
    assert price_curve(replace(POOL, speeds=speeds)) == ()


def test_a_level_below_the_floor_is_not_counted_on() -> None:
    floor = replace(POOL, rate=1.5 * FULL, min_quality=0.97)
    # With fewer ways out, seconds are dearer.
    assert price_at(price_curve(floor), 4.0) > price_at(
        price_curve(replace(floor, min_quality=0.0)), 4.0
    )
