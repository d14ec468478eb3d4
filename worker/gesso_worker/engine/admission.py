"""Who joins the denoising batch next: first come first served, least slack first when not all fit. Pure."""

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
        return w.deadline_s - now_s - finish_seconds - w.remaining_steps * step_seconds

    ranked = sorted(waiting, key=lambda w: (slack(w) < 0, slack(w), w.order))
    return tuple(
        Admitted(w.key, "too late to help" if slack(w) < 0 else "least slack")
        for w in ranked[:free]
    )
