"""What judges of quality say of images that went out: what it teaches the predictor, how far off that was.

No I/O and no clock of its own: times come in as monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from gesso_router.embedding import Vector
from gesso_router.routing.predictors.learned import MOST_OBSERVED, LearnedPredictor
from gesso_router.routing.quality import Match, QualityPredictor, held_at
from gesso_router.validation import invalid


@dataclass(frozen=True)
class Shown:
    """What an image went out with: the K used, its predicted quality, and what that was predicted from.

    `match` is the entry whose latents the run began with; None at K = 0, or where it is none that the router
    knows. `prompt` is the prompt's embedding.
    """

    skipped_steps: int
    quality: float
    match: Match | None = None
    prompt: Vector | None = None


@dataclass(frozen=True)
class Verdict:
    """What was predicted of the image, and whether the predictor has learned from it."""

    predicted_quality: float
    learned: bool


@dataclass
class ErrorTally:
    """Reports of one level, and sums over them of predicted minus reported relative quality."""

    reports: int = 0
    error_sum: float = 0.0
    absolute_sum: float = 0.0


class UnknownRequestError(Exception):
    """A report on a request that is not remembered."""


class Feedback:
    """Remembers what recent images went out with until somebody tells what they were worth."""

    def __init__(self, ladder: Sequence[int], most: int, seconds: float) -> None:
        """At most `most` images are remembered, each for `seconds`."""
        self.tallies = {k: ErrorTally() for k in ladder}
        self._most = most
        self._seconds = seconds
        self._shown: OrderedDict[str, tuple[float, Shown]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shown)

    def served(self, request_id: str, shown: Shown, now_s: float) -> None:
        """An image went out. Where an id comes again, the newest image counts."""
        self._shown.pop(request_id, None)
        self._shown[request_id] = now_s, shown
        self._forget(now_s)
        if len(self._shown) > self._most:
            self._shown.popitem(last=False)

    def reported(
        self,
        request_id: str,
        relative_quality: float | None,
        predictor: QualityPredictor,
        now_s: float,
    ) -> tuple[QualityPredictor, Verdict]:
        """The predictor after a report, and the verdict; each image is reported on once.

        `relative_quality` is to the same prompt and seed at K = 0. Raises RequestError (INVALID) where it
        is missing, not finite, or outside 0 to 1.5; UnknownRequestError for an image that is not remembered.
        """
        # Not a number compares false with all.
        if relative_quality is None or not 0.0 <= relative_quality <= MOST_OBSERVED:
            raise invalid("relative_quality", relative_quality, f"0 to {MOST_OBSERVED:g}")
        self._forget(now_s)
        _, shown = self._shown.pop(request_id, (0.0, None))
        if shown is None:
            raise UnknownRequestError(
                f"request_id: {request_id!r} is not allowed: one of the last {self._most} images, served "
                f"within {self._seconds:g} s and not reported on before"
            )
        tally = self.tallies[held_at(shown.skipped_steps, self.tallies)]
        error = shown.quality - relative_quality
        tally.reports += 1
        tally.error_sum += error
        tally.absolute_sum += abs(error)
        after = learned_from(predictor, shown, relative_quality)
        return after, Verdict(shown.quality, after is not predictor)

    def _forget(self, now_s: float) -> None:
        """Drops what is too old; images lie in the order in which they went out."""
        while self._shown and next(iter(self._shown.values()))[0] < now_s - self._seconds:
            self._shown.popitem(last=False)


def learned_from(
    predictor: QualityPredictor, shown: Shown, relative_quality: float
) -> QualityPredictor:
    """The predictor after an observation; the same object where it has nothing to learn from it."""
    match = shown.match
    if not isinstance(predictor, LearnedPredictor) or match is None:
        return predictor
    if shown.skipped_steps not in predictor.levels:
        return predictor
    return predictor.observed(
        match.similarity, shown.prompt, match.embedding, shown.skipped_steps, relative_quality
    )
