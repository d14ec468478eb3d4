"""The profile as it is now: what warm-up measured, corrected by what serving takes.

Warm-up measures alone and once, while other processes start or a device is cold. What follows is measured
for as long as the worker serves, so that planner and routers reckon with the device as it is.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace

from gesso.profile import Profile
from gesso_worker.engine.rest import Proof, RestStage

#: Expected seconds of work after which an observation counts 1/e.
MEMORY_SECONDS = 8.0
#: What warm-up's own measurement counts, in expected seconds.
PRIOR_SECONDS = 0.5
#: One stall must not pass for a slow device.
MOST_RATIO = 5.0
#: What a proof at rest counts, in expected seconds: much, since there are few.
PROOF_SECONDS = 16.0
#: A profile is told anew when a part moved by this share: small changes would only unsettle plans.
TELL_SHARE = 0.08


@dataclass
class Ratio:
    """Actual over expected seconds: a ratio of sums in which old observations fade with the work done since."""

    actual: float = PRIOR_SECONDS
    expected: float = PRIOR_SECONDS
    _proof: Proof = field(default_factory=Proof)

    @property
    def value(self) -> float:
        """Above 1 where work takes longer than expected."""
        return self.actual / self.expected

    def observe(self, expected_seconds: float, actual_seconds: float) -> None:
        """After some work. Times that are not above 0, or not finite, teach nothing."""
        if not (0 < expected_seconds < math.inf and 0 < actual_seconds < math.inf):
            return
        self._proof.forget()
        self._add(expected_seconds, min(actual_seconds, MOST_RATIO * expected_seconds))

    def rested(self, expected_seconds: float, actual_seconds: float) -> None:
        """After a measurement at rest, which may only show that work is faster than was thought.

        Slower it may be for cold caches, or clocks that sleep. Serving finds out what is really slow.
        """
        if not (0 < expected_seconds < math.inf and 0 < actual_seconds < math.inf):
            return
        sure = self._proof.add(actual_seconds / expected_seconds)
        if sure < (1 - TELL_SHARE) * self.value:
            self._add(PROOF_SECONDS, sure * PROOF_SECONDS)

    def _add(self, expected_seconds: float, actual_seconds: float) -> None:
        fade = math.exp(-expected_seconds / MEMORY_SECONDS)
        self.actual = self.actual * fade + actual_seconds
        self.expected = self.expected * fade + expected_seconds


class LiveProfile:
    """Follows one worker's stages. Thread-safe: each stage is measured by its own thread."""

    def __init__(self, measured: Profile) -> None:
        """`measured` is warm-up's profile."""
        self._measured = measured
        self._told = measured
        self._encode, self._decode, self._steps = Ratio(), Ratio(), Ratio()
        self._lock = threading.Lock()

    def encoded(self, seconds: float) -> None:
        """A prompt was encoded."""
        with self._lock:
            self._encode.observe(self._measured.encode_seconds, seconds)

    def decoded(self, seconds: float) -> None:
        """An image was decoded."""
        with self._lock:
            self._decode.observe(self._measured.decode_seconds, seconds)

    def ticked(self, batch: int, seconds: float) -> None:
        """A batch of so many requests went one step on."""
        with self._lock:
            self._steps.observe(self._measured.tick_seconds(batch), seconds)

    def rested(self, stage: RestStage, seconds: float) -> None:
        """A stage was measured alone while there were no requests; a step with a batch of one."""
        measured = self._measured
        with self._lock:
            if stage == "encode":
                self._encode.rested(measured.encode_seconds, seconds)
            elif stage == "decode":
                self._decode.rested(measured.decode_seconds, seconds)
            else:
                self._steps.rested(measured.tick_seconds(1), seconds)

    @property
    def profile(self) -> Profile:
        """The profile now. The same object until a part of it moved by `TELL_SHARE`."""
        measured, told = self._measured, self._told
        with self._lock:
            encode, decode, steps = self._encode.value, self._decode.value, self._steps.value
            parts = (
                (measured.encode_seconds * encode, told.encode_seconds),
                (measured.decode_seconds * decode, told.decode_seconds),
                (measured.step_seconds[0] * steps, told.step_seconds[0]),
            )
            if any(abs(now - before) > TELL_SHARE * before for now, before in parts):
                self._told = replace(
                    measured,
                    encode_seconds=parts[0][0],
                    decode_seconds=parts[1][0],
                    step_seconds=tuple(t * steps for t in measured.step_seconds),
                )
            return self._told
