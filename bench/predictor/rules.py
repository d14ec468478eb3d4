"""Choices of K by several rules, as curves of mean quality over mean steps saved, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gesso_router.routing.predictors.thresholds import NIRVANA_THRESHOLDS
from gesso_worker.models.tiny.evaluate.quality import LADDER

Array = np.ndarray[Any, Any]

#: Worth of one skipped step in relative quality, from never skipping to always.
WORTHS: Final = np.concatenate([[0.0], np.geomspace(1e-5, 0.5, 160)])
#: All of NIRVANA's thresholds lowered by so much; 0 is as published.
SHIFTS: Final = np.round(np.arange(-0.5, 0.5001, 0.005), 3)
BOOTSTRAPS: Final = 2000


@dataclass(frozen=True)
class Rule:
    """Choices by m settings of one knob for n prompts: `chosen` (m, n) are indices into the ladder."""

    name: str
    chosen: Array

    def points(self, truth: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """Mean steps saved and mean quality (m,) at each setting, of prompts of the given weights (n,)."""
        saved = np.array(LADDER)[self.chosen]
        quality = np.take_along_axis(truth[None], self.chosen[..., None], axis=2)[..., 0]
        w = np.full(len(truth), 1 / len(truth)) if weights is None else weights / weights.sum()
        return saved @ w, quality @ w


def by_worth(name: str, predicted: Array) -> Rule:
    """For each prompt the K with the largest predicted quality + worth * K."""
    value = predicted[None] + WORTHS[:, None, None] * np.array(LADDER)
    # Of equally good ones the deepest: it saves more.
    last = (
        value.shape[2] - 1 - np.argmax(value[..., ::-1] >= value.max(2, keepdims=True) - 1e-12, 2)
    )
    return Rule(name, last)


def by_thresholds(similarity: Array) -> Rule:
    """NIRVANA's thresholds, moved together."""
    thresholds = np.array([t for t, _ in NIRVANA_THRESHOLDS])
    shifted = similarity[None, :, None] > thresholds - SHIFTS[:, None, None]
    return Rule("thresholds", shifted.sum(axis=2))


def fixed(prompts: int) -> Rule:
    """The same K for everybody."""
    return Rule("fixed K", np.tile(np.arange(len(LADDER))[:, None], (1, prompts)))


def quality_at(saved: Array, quality: Array, at: Array) -> Array:
    """Quality at mean steps saved, mixing neighbouring settings; the best of settings that save the same."""
    order = np.lexsort((quality, saved))
    x, y = saved[order], quality[order]
    last = np.append(np.diff(x) > 1e-12, True)
    found: Array = np.interp(at, x[last], y[last])
    return found


def differences(
    rules: Mapping[str, Rule],
    truth: Array,
    session: Array,
    at: Array,
    of: str,
    against: tuple[str, ...],
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """Quality of one rule less that of others at equal mean steps saved: mean, and 95 % interval by session.

    Sessions are drawn with replacement, and all curves are made anew from each draw.
    """
    names, index = np.unique(session, return_inverse=True)
    rng = np.random.default_rng(seed)
    draws: dict[str, list[Array]] = {name: [] for name in against}

    def gaps(weights: Array | None) -> dict[str, Array]:
        mine = quality_at(*rules[of].points(truth, weights), at)
        return {
            name: mine - quality_at(*rules[name].points(truth, weights), at) for name in against
        }

    sums = {name: _by_session(rules[name], truth, index, len(names)) for name in (of, *against)}
    sizes = np.bincount(index, minlength=len(names))
    for _ in range(BOOTSTRAPS):
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
        total = counts @ sizes
        found = {
            name: quality_at(saved @ counts / total, quality @ counts / total, at)
            for name, (saved, quality) in sums.items()
        }
        for name in against:
            draws[name].append(found[of] - found[name])
    plain = gaps(None)
    out = {}
    for name in against:
        low, high = np.quantile(np.array(draws[name]), [0.025, 0.975], axis=0)
        out[name] = {
            "mean": _rounded(plain[name]),
            "low": _rounded(low),
            "high": _rounded(high),
        }
    return out


def _by_session(rule: Rule, truth: Array, index: Array, sessions: int) -> tuple[Array, Array]:
    """Sums of steps saved and quality (m, sessions)."""
    saved = np.array(LADDER, float)[rule.chosen]
    quality = np.take_along_axis(truth[None], rule.chosen[..., None], axis=2)[..., 0]
    member = np.zeros((len(index), sessions))
    member[np.arange(len(index)), index] = 1.0
    return saved @ member, quality @ member


def _rounded(values: Array) -> list[float]:
    return [round(float(v), 5) for v in values]
