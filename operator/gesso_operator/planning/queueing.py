"""Up to which utilisation a pool of workers meets the deadline: waiting counts, not service alone."""

from __future__ import annotations

import math

from gesso.profile import Profile
from gesso_operator.planning.settings import Settings

_BISECTIONS = 50


def wait_exceeds(
    utilisation: float, servers: int, service_s: float, wait_s: float, variability: float
) -> float:
    """Probability that a request waits longer than `wait_s` in an M/G/c queue, approximately.

    P(W > t) = Pw exp(-t c (1 - r) / (v s)), with Pw = r^(sqrt(2 (c + 1)) - 1) (Sakasegawa 1977) and the
    Allen-Cunneen factor v = (ca^2 + cs^2) / 2 (Allen 1990); `variability` is v, `service_s` the mean s.
    """
    if utilisation >= 1.0:
        return 1.0
    if utilisation <= 0.0:
        return 0.0
    waits = math.pow(utilisation, math.sqrt(2.0 * (servers + 1)) - 1.0)
    if service_s <= 0 or variability <= 0:
        return waits if wait_s <= 0 else 0.0
    return waits * math.exp(
        -max(0.0, wait_s) * servers * (1.0 - utilisation) / (variability * service_s)
    )


def utilisation_bound(
    servers: int,
    service_s: float,
    wait_s: float,
    late_share: float,
    variability: float,
    most: float,
) -> float:
    """Largest utilisation at which at most `late_share` of the requests wait longer than `wait_s`.

    0 when `wait_s` is negative: such requests are late even on an idle worker. At most `most`.
    """
    if servers < 1 or wait_s < 0:
        return 0.0
    low, high = 0.0, most
    if wait_exceeds(high, servers, service_s, wait_s, variability) <= late_share:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if wait_exceeds(middle, servers, service_s, wait_s, variability) <= late_share:
            low = middle
        else:
            high = middle
    return low


def working_batch(profile: Profile, settings: Settings) -> int:
    """The batch that loaded workers are reckoned with."""
    best = profile.best_batch(settings.batch_latency_share * settings.latency_s)
    return min(best, settings.max_batch)


def level_bounds(profile: Profile, servers: int, settings: Settings) -> tuple[float, ...]:
    """Utilisation bound of the pool for each level of the ladder, were all its load at that level.

    A worker is one server whose service takes the device seconds of an image at the working batch; what the
    batch adds to an image's own latency comes off the time it may wait.
    """
    batch = working_batch(profile, settings)
    return tuple(
        utilisation_bound(
            servers,
            profile.work_seconds(k, batch),
            settings.latency_s - profile.latency_seconds(k, batch),
            1.0 - settings.attainment,
            (1.0 + settings.service_scv) / 2.0,
            settings.max_utilisation,
        )
        for k in settings.ladder
    )
