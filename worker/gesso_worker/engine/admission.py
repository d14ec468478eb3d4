"""Who is in the denoising batch: first come first served, least slack first when not all fit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal["fits", "least slack", "too late to help"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that could join: `order` grows with arrival, `deadline_s` on the clock of `now_s`."""

    key: int
    order: int
    remaining_steps: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that joins, and why it rather than another."""

    key: int
    reason: Reason


def admit(
    waiting: Sequence[Waiting],
    free: int,
    now_s: float,
    step_seconds: float,
    finish_seconds: float = 0.0,
) -> tuple[Admitted, ...]:
    """At most `free` of `waiting`, in the order in which they join.

    All of them by arrival if they fit. Otherwise by slack, which is the time left after the remaining steps (at
    `step_seconds` each) and the decoding (`finish_seconds`); equal slack by arrival. A request without any
    slack left would be late anyway: it comes after those that can still be in time.
    """
    if free <= 0:
        return ()
    if len(waiting) <= free:
        return tuple(Admitted(w.key, "fits") for w in sorted(waiting, key=lambda w: w.order))

    def slack(w: Waiting) -> float:
        return _slack(w, now_s, step_seconds, finish_seconds)

    ranked = sorted(waiting, key=lambda w: (slack(w) < 0, slack(w), w.order))
    return tuple(
        Admitted(w.key, "too late to help" if slack(w) < 0 else "least slack")
        for w in ranked[:free]
    )


@dataclass(frozen=True, slots=True)
class Swap:
    """`leaves` makes room for `joins` and waits; both are keys."""

    leaves: int
    joins: int


def swap(
    active: Sequence[Waiting],
    waiting: Sequence[Waiting],
    now_s: float,
    step_seconds: float,
    finish_seconds: float = 0.0,
) -> Swap | None:
    """Whether one of a full batch should make room for one that waits; None: nobody.

    Of those that wait, the one with the least slack that can be in time, if it cannot wait until a place falls
    free by itself. Of those in the batch, one that will be late anyway; else the one with the most slack, if it
    can still be in time after the other has run. So nobody who would be in time is made late.
    """
    if not active or not waiting:
        return None

    def slack(w: Waiting) -> float:
        return _slack(w, now_s, step_seconds, finish_seconds)

    next_free_s = min(a.remaining_steps for a in active) * step_seconds
    urgent = [w for w in waiting if 0 <= slack(w) < next_free_s]
    if not urgent:
        return None
    joins = min(urgent, key=lambda w: (slack(w), w.order))
    victim = max(active, key=lambda a: (slack(a) < 0, slack(a), a.order))
    if 0 <= slack(victim) <= (joins.remaining_steps + 1) * step_seconds:
        return None
    return Swap(victim.key, joins.key)


def _slack(w: Waiting, now_s: float, step_seconds: float, finish_seconds: float) -> float:
    """Seconds left after the remaining steps and the decoding."""
    return w.deadline_s - now_s - finish_seconds - w.remaining_steps * step_seconds
