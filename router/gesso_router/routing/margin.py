"""How far estimates are off: a worker against its profile, and a margin that mostly holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from gesso.profile import Profile


@dataclass(frozen=True)
class Margin:
    """Tracks a quantile of (actual / estimated) latency by stochastic approximation.

    After each image the factor moves up by `rate * quantile` if it was exceeded, else down by
    `rate * (1 - quantile)`, relative to itself: it settles where the share `quantile` of the images
    stays below (Robbins and Monro, 1951). Bounded, so that one stall cannot close the service, nor
    luck open it.

    The factor is there to keep deadlines, so an error counts relative to the deadline's share
    `least_share` where the estimate is shorter: who joins the batch makes a short image late by as
    much as a long one, but not late.
    """

    factor: float = 1.25
    quantile: float = 0.95
    rate: float = 0.08
    lowest: float = 1.03
    highest: float = 1.8
    #: A little more than 1 / highest, the longest estimate that the largest factor lets in: those near it count
    #: in full.
    least_share: float = 0.6

    def observe(
        self, estimated_seconds: float, actual_seconds: float, deadline_seconds: float
    ) -> Margin:
        """After an image that had `deadline_seconds` left when it was estimated.

        An estimate or a time that is not above 0 teaches nothing.
        """
        if not (estimated_seconds > 0 and actual_seconds > 0):
            return self
        against = max(estimated_seconds, self.least_share * deadline_seconds)
        ratio = 1 + (actual_seconds - estimated_seconds) / against
        if not math.isfinite(ratio):
            return self
        step = self.quantile if ratio > self.factor else self.quantile - 1
        factor = self.factor * (1 + self.rate * step)
        return replace(self, factor=min(self.highest, max(self.lowest, factor)))


@dataclass(frozen=True)
class Margins:
    """The usual margin, and a strict one for where most are refused.

    Usually the queue is shorter than deadlines allow, and few images come near the margin. Where most are
    refused, every image that is let in stands at its edge, so that the share above its quantile is late; and a
    place that one may miss its deadline in is better given to nobody, as workers have enough to do.
    """

    usual: Margin = Margin()
    strict: Margin = Margin(quantile=0.99)

    def observe(
        self, estimated_seconds: float, actual_seconds: float, deadline_seconds: float
    ) -> Margins:
        """After an image; see `Margin.observe`."""
        seconds = estimated_seconds, actual_seconds, deadline_seconds
        return Margins(self.usual.observe(*seconds), self.strict.observe(*seconds))

    def factor(self, *, most_refused: bool) -> float:
        """What estimates are multiplied by."""
        usual = self.usual.factor
        return max(usual, self.strict.factor) if most_refused else usual


@dataclass(frozen=True)
class Drift:
    """How slow a worker is against the profile that it tells, 1 being as told.

    Workers follow their own stages; what the drift holds besides is what only their clients see. It
    is a running geometric mean of actual over estimated latency, each image counting `rate`.
    """

    factor: float = 1.0
    images: int = 0
    at_s: float = 0.0
    rate: float = 0.1
    fresh_seconds: float = 30.0
    lowest: float = 0.25
    highest: float = 4.0

    def observe(self, expected_seconds: float, actual_seconds: float, now_s: float) -> Drift:
        """After an image; `expected_seconds` was made with this drift in it."""
        if not (expected_seconds > 0 and actual_seconds > 0):
            return self
        ratio = min(4.0, max(0.25, actual_seconds / expected_seconds))
        # The first images count fully; after a pause what was learned before counts as much as two.
        images = self.images if now_s - self.at_s <= self.fresh_seconds else min(self.images, 2)
        factor = self.factor * math.pow(ratio, max(self.rate, 1 / (images + 1)))
        return replace(
            self,
            factor=min(self.highest, max(self.lowest, factor)),
            images=images + 1,
            at_s=now_s,
        )

    def carried(self, before: Profile, after: Profile) -> Drift:
        """The drift against another profile that the same worker tells: what it takes is what it took."""
        factor = self.factor * before.busy_step_seconds / after.busy_step_seconds
        kept = factor if self.images else 1.0
        return replace(self, factor=min(self.highest, max(self.lowest, kept)))

    def proven(self, now_s: float) -> bool:
        """Whether an image has lately shown how fast the worker is."""
        return self.images > 0 and now_s - self.at_s <= self.fresh_seconds

    def applied(self, profile: Profile) -> Profile:
        """The profile as it is now, to within 1 %: profiles that hardly differ are one."""
        return _scaled(profile, round(math.log(self.factor) / 0.02))


@lru_cache(maxsize=1024)
def _scaled(profile: Profile, notches: int) -> Profile:
    factor = math.exp(notches * 0.02)
    return Profile(
        profile.device,
        profile.steps,
        profile.encode_seconds * factor,
        profile.decode_seconds * factor,
        tuple(t * factor for t in profile.step_seconds),
    )
