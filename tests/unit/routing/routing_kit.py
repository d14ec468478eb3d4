"""Shared builders for routing tests."""

from __future__ import annotations

from gesso.plan import Plan
from gesso.profile import Profile
from gesso_router.routing.choose import FleetView, WorkerView
from gesso_router.routing.quality import Match, Option

#: One second a step alone, 1.5 s in a batch of two; nothing else takes time.
SLOW = Profile("slow", 10, 0.0, 0.0, (1.0, 1.5))
LADDER = (0, 2, 4, 6)


def options(
    *quality: float, worker: str = "a", ladder: tuple[int, ...] = LADDER
) -> tuple[Option, ...]:
    """Options along the ladder, latents on `worker`."""
    match = Match("entry", worker, 0.9, ladder[1:])
    return tuple(Option(k, q, match if k else None) for k, q in zip(ladder, quality, strict=False))


def plan(price: float) -> Plan:
    """A plan of which only the price matters."""
    return Plan(1, 0.0, (), price, "Test", "")


def fleet(
    *workers: WorkerView, slo: float = 100.0, price: float = 0.0, margin: float = 1.0
) -> FleetView:
    return FleetView(workers, slo_seconds=slo, plan=plan(price), margin=margin, fetch_seconds=0.5)
