"""Is a move worth its disruption, and has it been asked for long enough?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from gesso_operator.planning.settings import Settings

_MOST_DOUBLINGS = 4
#: A model that is held for an hour after a burst costs more quality than one more switch.
_MOST_MODEL_DOUBLINGS = 2


@dataclass(frozen=True)
class Verdict:
    """Whether a move passes, its score (benefit share over disruption share), and why."""

    passes: bool
    score: float
    why: str


def worth(benefit: float, disruption: float, threshold: float = 1.0) -> Verdict:
    """Weighs a move. Both are shares of what the fleet serves: 0.02 is two per cent of it.

    Total: no benefit (zero, negative or NaN) never passes; an unknown disruption (NaN) never passes; a
    disruption of zero or less lets any benefit pass; a NaN or negative threshold counts as 0.
    """
    if math.isnan(benefit) or benefit <= 0:
        return Verdict(False, 0.0, "no benefit")
    if math.isnan(disruption):
        return Verdict(False, 0.0, "disruption unknown")
    if disruption <= 0:
        return Verdict(True, math.inf, "no disruption")
    if math.isinf(disruption):
        return Verdict(False, 0.0, "disruption without bound")
    score = benefit / disruption
    least = threshold if threshold > 0 else 0.0
    passes = score >= least
    return Verdict(passes, score, "worth it" if passes else "benefit below disruption")


class Direction(StrEnum):
    """Which way a move goes."""

    NONE = "none"
    FASTER = "faster"  # to levels that skip more steps
    SLOWER = "slower"  # back to quality


@dataclass(frozen=True)
class HysteresisState:
    """What was asked for lately, and what was done.

    `agreed` consecutive plans asked for `asking`; `last` is the direction of the last move, `since_move` the
    plans since then; `reversals` counts the recent moves against the one before.
    """

    asking: Direction = Direction.NONE
    agreed: int = 0
    last: Direction = Direction.NONE
    since_move: int = 0
    reversals: int = 0


def needed(
    state: HysteresisState,
    direction: Direction,
    settings: Settings,
    models: bool = False,
    urgent: bool = True,
) -> int:
    """Consecutive plans that must agree on a move, of levels or of `models`.

    A move to faster models waits as long as one to slower ones where it is not `urgent`.
    More for slower levels than for faster ones, and twice as many for each recent reversal: so the number of
    moves under a load that hovers at a threshold grows with the logarithm of time only.
    """
    if direction is Direction.FASTER and (urgent or not models):
        return settings.model_faster_agreement if models else settings.faster_agreement
    least = settings.model_slower_agreement if models else settings.slower_agreement
    return least << min(state.reversals, _MOST_MODEL_DOUBLINGS if models else _MOST_DOUBLINGS)


def ask(
    state: HysteresisState,
    direction: Direction,
    jumped: bool,
    settings: Settings,
    models: bool = False,
    urgent: bool = True,
) -> tuple[HysteresisState, bool]:
    """Counts one plan's wish; says whether it may be granted. A jump of the load clears the reversals."""
    reversals = 0 if jumped else state.reversals
    since = state.since_move + 1
    if reversals and since % settings.forget_plans == 0:
        reversals -= 1
    agreed = state.agreed + 1 if direction is state.asking else 1
    if direction is Direction.NONE:
        agreed = 0
    new = replace(state, asking=direction, agreed=agreed, since_move=since, reversals=reversals)
    granted = direction is not Direction.NONE and agreed >= needed(
        new, direction, settings, models, urgent
    )
    return new, granted


def moved(state: HysteresisState, direction: Direction, settings: Settings) -> HysteresisState:
    """The state after a move was made."""
    opposite = state.last not in (Direction.NONE, direction)
    reversal = opposite and state.since_move <= settings.reversal_plans
    return HysteresisState(last=direction, reversals=state.reversals + int(reversal))
