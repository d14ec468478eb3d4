"""What a prompt's nearest cached entries let it skip: matches, options, curves, and what predicts quality.

Similarity is the cosine between prompt embeddings. The level really used at a wanted K is the
largest held level <= K, so quality and cost follow the held level; without an entry only K = 0 can
be served. The predictors themselves are in `predictors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gesso.plan import QualityCurve

#: A prompt's embedding, float32, shape (d,), length 1.
Vector = npt.NDArray[np.float32]

MISS = "miss"
#: Quality of a level that no held latent can serve, in curves made for planning.
UNSERVABLE = 0.0
#: Quality that another entry may cost in place of one that cannot be had.
STAND_IN_LOSS = 0.02
MOST_STAND_INS = 2


@dataclass(frozen=True)
class Match:
    """An entry of the cache near a prompt: where it lies, how near, and the levels K > 0 held, ascending.

    `embedding` is that of the entry's prompt; None: not told.
    """

    entry_id: str
    worker: str
    similarity: float
    held_levels: tuple[int, ...]
    embedding: Vector | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Option:
    """One way to serve a prompt: K, its predicted relative quality (0 to 1), and the entry it starts from.

    `model` names the variant's model, empty for the service's own: only a worker that holds it can serve.
    """

    skipped_steps: int
    quality: float
    match: Match | None = None
    model: str = ""


class QualityPredictor(Protocol):
    """What is known of a prompt and its neighbour in, relative quality over the ladder out.

    `prompt` and `neighbour` are embeddings, for predictors that look beyond the similarity; without
    them, or where they are not finite, the similarity alone decides.
    """

    @property
    def ladder(self) -> tuple[int, ...]:
        """The levels, ascending, from 0."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every prompt class there is, `miss` first, then by falling loss."""

    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """Relative quality at each K of the ladder with all levels held: 1 first, never rising, 0 to 1."""

    def qualities(
        self, matches: Sequence[Match], prompt: Vector | None = None
    ) -> Sequence[tuple[float, ...]]:
        """`quality` of each of a prompt's matches."""

    def prompt_class(
        self,
        similarity: float | None,
        prompt: Vector | None = None,
        neighbour: Vector | None = None,
    ) -> str:
        """The class of a prompt whose nearest entry has this similarity; None: no entry."""


def held_at(skipped_steps: int, held_levels: Iterable[int]) -> int:
    """The level really used at K: the largest held level <= K, 0 if there is none."""
    return max((k for k in held_levels if k <= skipped_steps), default=0)


def predicted_curve(
    predictor: QualityPredictor, match: Match | None, prompt: Vector | None = None
) -> QualityCurve:
    """Quality over the ladder, each K served at the largest held level <= K."""
    ladder = predictor.ladder
    if match is None:
        return QualityCurve(ladder, (1.0,) * len(ladder))
    quality = predictor.quality(match.similarity, prompt, match.embedding)
    by_level = dict(zip(ladder, quality, strict=True))
    held = [k for k in match.held_levels if k in by_level]
    return QualityCurve(ladder, tuple(by_level[held_at(k, held)] for k in ladder))


def serving_options(
    predictor: QualityPredictor, matches: Sequence[Match], prompt: Vector | None = None
) -> tuple[Option, ...]:
    """Every K that can be served, ascending; at each the match with the highest predicted quality."""
    best: dict[int, tuple[float, Match | None]] = {0: (1.0, None)}
    ladder = predictor.ladder
    for match, curve in zip(matches, predictor.qualities(matches, prompt), strict=True):
        by_level = dict(zip(ladder, curve, strict=True))
        for k in match.held_levels:
            quality = by_level.get(k)
            if quality is None or k == 0:
                continue
            known = best.get(k)
            if known is None or quality > known[0]:
                best[k] = (quality, match)
    return tuple([Option(k, *best[k]) for k in sorted(best)])


def stand_ins(
    predictor: QualityPredictor,
    option: Option,
    matches: Sequence[Match],
    prompt: Vector | None = None,
) -> tuple[Match, ...]:
    """Other entries that an option may start from as well, at its K and nearly its quality, best first."""
    k = option.skipped_steps
    others = [m for m in matches if m != option.match and k in m.held_levels]
    if option.match is None or k not in predictor.ladder or not others:
        return ()
    at = predictor.ladder.index(k)
    curves = predictor.qualities(others, prompt)
    rated = [(curve[at], m) for m, curve in zip(others, curves, strict=True)]
    good = [(q, m) for q, m in rated if q >= option.quality - STAND_IN_LOSS]
    good.sort(key=lambda pair: -pair[0])
    return tuple(m for _, m in good[:MOST_STAND_INS])


def quality_at(
    predictor: QualityPredictor, option: Option, used: int, embedding: Vector | None
) -> float:
    """Predicted relative quality at the K that a worker used, which may be below the one of `option`."""
    if option.model or used == option.skipped_steps:
        return option.quality
    if used == 0 or option.match is None:
        return 1.0
    match = option.match
    curve = predictor.quality(match.similarity, embedding, match.embedding)
    return dict(zip(predictor.ladder, curve, strict=True)).get(used, option.quality)


def planning_curve(options: Sequence[Option], ladder: Sequence[int]) -> QualityCurve:
    """Best quality when at least K steps are to be skipped: what a planner of capacity may count on.

    0 where nothing held saves that much: a planner that took the curve by held level at its word
    would count work as saved that is not.
    """
    return QualityCurve(
        tuple(ladder),
        tuple(
            max((o.quality for o in options if o.skipped_steps >= k), default=UNSERVABLE)
            for k in ladder
        ),
    )
