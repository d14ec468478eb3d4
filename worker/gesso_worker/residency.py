"""Which models stay in memory beside the one that is about to be loaded; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """A model in memory, by its name, and the bytes of its weights."""

    model: str
    size: int


def to_let_go(residents: Sequence[Resident], needed: int, bound: int) -> tuple[str, ...]:
    """The models to let go of, least recently used first, so that one of `needed` bytes fits below `bound`.

    `residents` are in the order of their last use, the longest unused first. All go where it does not fit
    beside any: a worker holds one model at least, whatever its size.
    """
    total = needed + sum(r.size for r in residents)
    gone = []
    for resident in residents:
        if total <= bound:
            break
        gone.append(resident.model)
        total -= resident.size
    return tuple(gone)
