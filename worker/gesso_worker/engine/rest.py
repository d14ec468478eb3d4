"""When a worker at rest measures a stage once more, and what that proves; pure: time is passed in.

What serving takes corrects a profile, but only where work is sent: a worker that seems slower than it is gets
none at small K, and would seem so for ever. So it measures while it has nothing to do, for a bounded share of
the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

RestStage = Literal["encode", "step", "decode"]

#: A cycle of measurements: steps are most of an image.
TURNS: Final[tuple[RestStage, ...]] = ("step", "encode", "step", "decode")
#: Share of its time that a worker measures at most.
SHARE: Final = 0.008
#: Idle for so long first, and so long between two measurements at least.
IDLE_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 2.0


@dataclass
class RestPacer:
    """Whose turn it is. One stage at a time, each paid for by a pause before the next."""

    turns: tuple[RestStage, ...] = TURNS
    _turn: int = 0
    _not_before_s: float = 0.0
    _under_way: bool = False
    _gone: set[RestStage] = field(default_factory=set)

    def take(self, stage: RestStage, now_s: float, idle_s: float) -> bool:
        """Whether `stage` measures now; then `done` must follow. There was no request for `idle_s`."""
        if self._under_way or stage in self._gone or idle_s < IDLE_SECONDS:
            return False
        if now_s < self._not_before_s or self.turns[self._turn % len(self.turns)] != stage:
            return False
        self._under_way = True
        return True

    def done(self, now_s: float, spent_s: float) -> None:
        """The measurement is over, or was given up; it took `spent_s` of the device."""
        self._under_way = False
        self._turn += 1
        self._not_before_s = now_s + max(PAUSE_SECONDS, spent_s * (1 / SHARE - 1))

    def drop(self, stage: RestStage) -> None:
        """`stage` cannot be measured alone on this device: the others go on."""
        self._gone.add(stage)
        self.turns = tuple(t for t in self.turns if t != stage) or TURNS


@dataclass
class Proof:
    """How fast a stage surely is: as fast as the slower of two measurements in a row."""

    _before: float = math.inf

    def add(self, ratio: float) -> float:
        """After one more measurement, actual over expected seconds; infinite until there were two."""
        sure, self._before = max(ratio, self._before), ratio
        return sure

    def forget(self) -> None:
        """Real work lay between: what was measured before is of another time."""
        self._before = math.inf
