"""What a worker-second costs now, in relative quality: the plan's dual value, or the backlog's."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

#: Share of the plan's price that holds on an idle fleet.
IDLE_SHARE = 0.1


@dataclass(frozen=True)
class PricePolicy:
    """Constants of the backlog price; the defaults come from `bench/bench_price.py`.

    Of c in {2, 4, 6, 8, 12} and p in {1, 2, 3}, c = 6 and p = 2 serve the most relative quality in
    time per request offered: 0.947 over 2 and 8 workers, loads of 0.3x to 1.8x and swinging, three
    spreads of curves, SLOs of 3x and 7.5x the latency. c = 4 and 8 come within 0.001 of it; p = 1
    skips steps too soon, p = 3 refuses too many.

    `weight` is c, dimensionless: what the whole work of one image at K = 0 costs, in relative
    quality, once the backlog per worker equals the deadline. `exponent` is p: how late, and how
    steeply, the price rises.
    """

    weight: float = 6.0
    exponent: float = 2.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight: {self.weight} is not allowed: 0 or more")
        if not (math.isfinite(self.exponent) and self.exponent > 0):
            raise ValueError(f"exponent: {self.exponent} is not allowed: above 0")


@dataclass(frozen=True)
class Price:
    """Relative quality per worker-second, and which side set it: `plan`, `backlog` or `idle` (0)."""

    value: float
    source: str


def backlog_price(
    policy: PricePolicy, backlog_seconds: float, deadline_seconds: float, full_work_seconds: float
) -> float:
    """Price c / work(0) x (backlog / deadline)^p, in relative quality per worker-second.

    Args:
        policy: c and p.
        backlog_seconds: worker-seconds of accepted work per ready worker.
        deadline_seconds: the service's SLO latency.
        full_work_seconds: worker-seconds of one image at K = 0.
    """
    if full_work_seconds <= 0 or deadline_seconds <= 0:
        return 0.0
    ratio = max(0.0, backlog_seconds) / deadline_seconds
    return policy.weight / full_work_seconds * math.pow(ratio, policy.exponent)


def plan_price_now(plan_price: float, backlog_seconds: float, full_batch_seconds: float) -> float:
    """The plan's price as far as the fleet is busy: in full from half a batch of work per worker on.

    A plan outlives a load that has gone, and a worker-second that nobody waits for is worth little;
    a tenth is left on an idle fleet, since a plan also speaks of a load that is about to come.
    `full_batch_seconds` is the work of a full batch at K = 0. Total: a plan's price that is no
    number above 0 counts as 0, an unknown batch as busy.
    """
    if not (math.isfinite(plan_price) and plan_price > 0):
        return 0.0
    if full_batch_seconds <= 0:
        return plan_price
    busy = max(0.0, backlog_seconds) / (full_batch_seconds / 2)
    return plan_price * min(1.0, max(IDLE_SHARE, busy))


def plan_price_at(curve: Sequence[tuple[float, float]], backlog_seconds: float) -> Price:
    """The plan's price at a live backlog, from its price curve (see `gesso.plan.Plan.price_curve`)."""
    at = bisect_right(curve, (backlog_seconds, math.inf))
    if at == 0:
        value = curve[0][1]
    elif at == len(curve):
        value = curve[-1][1]
    else:
        (x0, y0), (x1, y1) = curve[at - 1], curve[at]
        value = y0 + (y1 - y0) * (backlog_seconds - x0) / (x1 - x0)
    return Price(value, "plan" if value > 0 else "idle")


def current_price(plan_price: float, live_price: float) -> Price:
    """The larger of the two.

    The plan acts before a backlog builds, the backlog when the plan did not see it coming. Not the
    sum, which would charge twice for the same shortage.
    """
    plan = plan_price if math.isfinite(plan_price) and plan_price > 0 else 0.0
    if plan <= 0 and live_price <= 0:
        return Price(0.0, "idle")
    return Price(plan, "plan") if plan >= live_price else Price(live_price, "backlog")
