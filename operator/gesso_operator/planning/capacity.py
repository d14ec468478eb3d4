"""What a pool of workers serves within the deadline: waiting counts, not service alone.

Requests come as a Poisson process and wait for c workers, each of which takes the device seconds of an image
at its level (and varies by the profile's p95). The probability of waiting longer than t is

    P(W > t) = a C exp(-h t),   M(h / c) = 1 + h / rate

with M the moment generating function of the service time: h is the exact asymptotic decay rate of the M/G/c
queue (Takahashi 1981, "Asymptotic exponentiality of the tail of the waiting-time distribution in a PH/PH/c
queue"). C is Erlang's delay probability, which hardly depends on the law of service, and a brings it to the
exact asymptotic constant (1 - r) / (rate M'(h) - 1) of one server (Cramer-Lundberg; Asmussen 2003, "Applied
Probability and Queues"). What an image is late by is W plus its own latency at its own level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.special import gammaln, pdtr

from gesso.profile import Profile
from gesso_operator.planning.settings import Settings

_BISECTIONS = 40
_P95_DEVIATIONS = 1.645
_SHORTEST_S = 1e-12


@dataclass(frozen=True)
class Blend:
    """The mixture of service times that a pool sees.

    Of each part: its `share` of the images (they sum to 1), `work_s` worker-seconds of an image, `latency_s`
    from its start to its end (above `work_s` where images share a batch), and `variation`, the coefficient
    of variation of both.
    """

    share: tuple[float, ...]
    work_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    variation: float = 0.0

    @property
    def mean_s(self) -> float:
        """Mean worker-seconds of an image."""
        return sum(p * w for p, w in zip(self.share, self.work_s, strict=True))

    def moments(self, x: float) -> tuple[float, float]:
        """M(x) - 1 and M'(x) of the service time, its parts taken as normal."""
        value = slope = 0.0
        for p, w in zip(self.share, self.work_s, strict=True):
            variance = (self.variation * w) ** 2
            grown = math.exp(min(500.0, x * w + x * x * variance / 2))
            value += p * (grown - 1.0)
            slope += p * grown * (w + x * variance)
        return value, slope


def blend_of(
    profile: Profile, levels: Sequence[int], shares: Sequence[float], batch: int = 1
) -> Blend:
    """The blend of a profile's levels in these shares of the images; shares are brought to sum to 1.

    Raises ValueError where a share is negative or not finite, or all are 0.
    """
    total = sum(shares)
    if any(not math.isfinite(s) or s < 0 for s in shares) or total <= 0:
        raise ValueError(f"shares: {tuple(shares)} are not allowed: finite, 0 or more, not all 0")
    return Blend(
        tuple(s / total for s in shares),
        tuple(profile.work_seconds(k, batch) for k in levels),
        tuple(profile.latency_seconds(k, batch) for k in levels),
        variation_of(profile),
    )


def variation_of(profile: Profile) -> float:
    """Coefficient of variation of a profile's times, from its 95th percentile over the mean."""
    return (profile.p95_ratio - 1.0) / _P95_DEVIATIONS


def capacity(
    workers: int, blend: Blend, deadline_s: float, attainment: float, most: float = 0.995
) -> float:
    """Images per second that a pool serves with at least `attainment` of them within `deadline_s`.

    0 where there are no workers, or too many images are late even on an idle one. `most` is a utilisation
    that is not exceeded.
    """
    bound = utilisation_bound(workers, blend, deadline_s, attainment, most)
    mean = blend.mean_s
    return workers * bound / mean if mean > 0 else 0.0


@lru_cache(maxsize=4096)
def utilisation_bound(
    workers: int, blend: Blend, deadline_s: float, attainment: float, most: float
) -> float:
    """Largest utilisation, at most `most`, at which a share of `attainment` is in time; 0: none."""
    late = 1.0 - attainment
    if workers < 1 or not blend.mean_s > 0 or late_share(0.0, workers, blend, deadline_s) > late:
        return 0.0
    if late_share(most, workers, blend, deadline_s) <= late:
        return most
    low, high = 0.0, most
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if late_share(middle, workers, blend, deadline_s) <= late:
            low = middle
        else:
            high = middle
    return low


def late_share(utilisation: float, workers: int, blend: Blend, deadline_s: float) -> float:
    """Share of the images that end later than `deadline_s` after they came, approximately (see the module)."""
    if utilisation >= 1.0:
        return 1.0
    rate = utilisation * workers / max(blend.mean_s, _SHORTEST_S)
    decay = _decay(rate, workers, blend) if utilisation > 0 else 0.0
    delayed = _prefactor(utilisation, rate, workers, blend, decay) if decay > 0 else 0.0
    late = 0.0
    for p, latency in zip(blend.share, blend.latency_s, strict=True):
        spread = blend.variation * latency
        spare = deadline_s - latency
        alone = _normal_tail(spare / spread) if spread > 0 else float(spare < 0)
        # The mean of exp(-h (spare - noise)) over normal noise.
        waits = delayed * math.exp(min(0.0, -decay * spare + (decay * spread) ** 2 / 2))
        late += p * min(1.0, alone + (1.0 - alone) * waits)
    return late


def working_batch(profile: Profile, settings: Settings) -> int:
    """The batch that loaded workers are reckoned with."""
    best = profile.best_batch(settings.batch_latency_share * settings.latency_s)
    return min(best, settings.max_batch)


def level_bound(profile: Profile, skipped_steps: int, workers: int, settings: Settings) -> float:
    """Utilisation bound of a pool, were all its load at one level; 0 where the level cannot be in time."""
    return _level_bound(
        profile,
        skipped_steps,
        max(1, workers),
        working_batch(profile, settings),
        settings.latency_s,
        settings.attainment,
        settings.max_utilisation,
    )


@lru_cache(maxsize=4096)
def _level_bound(
    profile: Profile,
    skipped_steps: int,
    workers: int,
    batch: int,
    deadline_s: float,
    attainment: float,
    most: float,
) -> float:
    blend = blend_of(profile, (skipped_steps,), (1.0,), batch)
    return utilisation_bound(workers, blend, deadline_s, attainment, most)


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits in M/M/c with `load` erlangs, exactly; 1 at `servers` erlangs and
    above.
    """
    if load >= servers:
        return 1.0
    if load <= 0:
        return 0.0
    below = float(pdtr(servers - 1, load))
    last = math.exp(servers * math.log(load) - load - float(gammaln(servers + 1)))
    last *= servers / (servers - load)
    return last / (below + last)


def _decay(rate: float, workers: int, blend: Blend) -> float:
    """The h of the module's docstring, by bisection between half and twice its heavy-traffic value, widened as
    needed.
    """
    mean = blend.mean_s
    spare = 1.0 - rate * mean / workers
    second = sum(
        p * w * w * (1 + blend.variation**2) for p, w in zip(blend.share, blend.work_s, strict=True)
    )
    start = 2.0 * spare * workers * mean / second

    def excess(h: float) -> float:
        return blend.moments(h / workers)[0] - h / rate

    low, high = start, start
    while excess(high) < 0:
        low, high = high, 2 * high
    if low == high:
        while excess(low) > 0 and low > 1e-12 * start:
            low /= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return low


def _prefactor(utilisation: float, rate: float, workers: int, blend: Blend, decay: float) -> float:
    slope = blend.moments(decay / workers)[1]
    single = (1.0 - utilisation) / max(1e-9, rate / workers * slope - 1.0)
    return erlang_c(workers, utilisation * workers) * single / utilisation


def _normal_tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2.0))
