"""Random small instances, and what real fleets do with them."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from gesso_simulator.bounds import BoundInstance, Workers


@st.composite
def fixed_fleets(draw, most_requests=14, device_classes=(1, 1), steps=(1, 2)):
    """A few requests on a few workers, busy enough that some are late at the slowest variant."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, most_requests))
    variants = draw(st.integers(1, 4))
    classes = draw(st.integers(*device_classes))
    service = np.sort(rng.uniform(0.3, 2.0, variants))[::-1] * rng.uniform(0.5, 2, (classes, 1))
    service = service * rng.uniform(0.9, 1.1, service.shape)
    slo = float(service.max() * rng.uniform(0.9, 3))
    count = draw(st.integers(*steps))
    workers = Workers(
        np.concatenate(([0.0], np.sort(rng.uniform(0.5, 6, count - 1)))),
        rng.integers(0 if count > 1 else 1, 4, (count, classes)).astype(float),
    )
    gap = draw(st.sampled_from([0.05, 0.3, 1.0]))
    arrivals = np.cumsum(rng.exponential(gap, n))
    quality = np.sort(rng.uniform(0.5, 1.0, (n, variants)), axis=1)[:, ::-1]
    if draw(st.booleans()):
        quality = np.where(rng.random(quality.shape) < 0.2, np.nan, quality)
    return BoundInstance(
        arrivals_s=arrivals,
        quality=np.ascontiguousarray(quality),
        class_of=rng.integers(0, 2, n),
        slo_s=slo,
        service_s=np.ascontiguousarray(service),
        workers=workers,
    )


def run_pool(
    instance: BoundInstance, choose: Callable[[int, float, list[int], np.ndarray], int | None]
) -> tuple[float, float]:
    """Violation ratio and mean quality of a first-come-first-served pool; `choose` names each request's
    variant.

    `choose(request, start_s, in_time, quality)` picks among the variants that finish in time on the worker
    that is free first, or None to shed. Service is deterministic; a constant fleet only.
    """
    served, quality = 0, 0.0
    free = [(0.0, d) for d, c in enumerate(instance.workers.counts[0]) for _ in range(int(c))]
    for i, arrival in enumerate(instance.arrivals_s):
        free.sort()
        at, device = free[0]
        start = max(at, float(arrival))
        in_time = [
            k
            for k in range(instance.quality.shape[1])
            if instance.quality[i, k] > 0
            and start + instance.service_s[device, k] <= arrival + instance.slo_s + 1e-12
        ]
        picked = choose(i, start, in_time, instance.quality[i]) if in_time else None
        if picked is None:
            continue
        served += 1
        quality += float(instance.quality[i, picked])
        free[0] = (start + float(instance.service_s[device, picked]), device)
    n = instance.arrivals_s.size
    return 1 - served / n, quality / served if served else 0.0
