"""Kubernetes' HorizontalPodAutoscaler with its defaults, pure: metric and counts in, number of workers out.

As the Kubernetes documentation gives it ("Horizontal Pod Autoscaling": the algorithm, and the configurable
scaling behaviour of `autoscaling/v2`), and where that is silent as the controller's sources do it
(`replica_calculator.go`, `horizontal.go`): desired = ceil(replicas x metric / target), left alone within the
tolerance. Pods that are not ready count as idle on the way up and not at all on the way down, and never turn
the direction round. The highest recommendation of the stabilisation window holds down a scale-down. The
default policies let each 15 s add 100 % or 4 pods, whichever is more, and let all go at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: Seconds between two looks: `--horizontal-pod-autoscaler-sync-period`.
SYNC_S = 15.0
#: `--horizontal-pod-autoscaler-tolerance`.
TOLERANCE = 0.1
#: `behavior.scaleDown.stabilizationWindowSeconds`; that of scaling up is 0.
STABILISATION_S = 300.0
#: `behavior.scaleUp.policies`: the larger of the two, for each period.
UP_SHARE = 1.0
UP_PODS = 4
POLICY_PERIOD_S = 15.0


@dataclass(frozen=True)
class HpaState:
    """Start from `HpaState()`. Recommendations and changes of size, both with the time they were made."""

    recommendations: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()


def recommended(current: int, ready: int, metric: float | None, target: float) -> int:
    """What the metric asks for, before bounds, stabilisation and policies.

    `metric` is the mean over the `ready` workers of `current`, None where there is none. Raises ValueError on
    a target that is not above 0.
    """
    if not target > 0 or not math.isfinite(target):
        raise ValueError(f"target: {target} is not allowed: above 0, finite")
    if metric is None or not math.isfinite(metric) or metric < 0 or ready < 1:
        return current
    waiting = max(0, current - ready)
    ratio = metric / target
    if waiting == 0 or ratio <= 1.0:
        return current if _tolerated(ratio) else math.ceil(_whole(ratio * ready))
    # On the way up whoever is not ready counts as idle.
    diluted = ratio * ready / (ready + waiting)
    if _tolerated(diluted) or diluted < 1.0:
        return current
    return max(current, math.ceil(_whole(diluted * (ready + waiting))))


def desired(
    current: int,
    ready: int,
    metric_per_ready: float | None,
    target: float,
    least: int,
    most: int,
    now_s: float,
    state: HpaState,
) -> tuple[int, HpaState]:
    """The number of workers to ask for at one sync, within `least` and `most`.

    `current` is what was asked for last, `ready` how many of them serve, `metric_per_ready` their mean metric
    in the target's unit; None: no metric, nothing changes. Raises ValueError on a bad target.
    """
    if (
        not state.recommendations
    ):  # what is there when the autoscaler starts counts as its first word
        state = replace(state, recommendations=((now_s, current),))
    if not least <= current <= most:
        size = min(most, max(least, current))
        return size, _changed(state, current, size, now_s)
    if metric_per_ready is None or not math.isfinite(metric_per_ready):
        return current, state
    wanted = recommended(current, ready, metric_per_ready, target)
    recent = tuple((t, n) for t, n in state.recommendations if t > now_s - STABILISATION_S)
    state = replace(state, recommendations=(*recent, (now_s, wanted)))
    size = wanted
    if wanted < current:
        size = min(current, max(n for _, n in state.recommendations))
    elif wanted > current:
        size = min(wanted, _up_limit(current, now_s, state))
    size = min(most, max(least, size))
    return size, _changed(state, current, size, now_s)


def _up_limit(current: int, now_s: float, state: HpaState) -> int:
    moved = sum(n for t, n in state.changes if t > now_s - POLICY_PERIOD_S)
    begun = current - moved
    return max(current, begun + UP_PODS, math.ceil(_whole(begun * (1.0 + UP_SHARE))))


def _changed(state: HpaState, current: int, size: int, now_s: float) -> HpaState:
    kept = tuple((t, n) for t, n in state.changes if t > now_s - POLICY_PERIOD_S)
    if size != current:
        kept = (*kept, (now_s, size - current))
    return replace(state, changes=kept)


def _tolerated(ratio: float) -> bool:
    return abs(1.0 - ratio) <= TOLERANCE + 1e-12


def _whole(value: float) -> float:
    """A float that is a whole number but for rounding must not be rounded up."""
    near = round(value)
    return float(near) if abs(value - near) < 1e-9 * max(1.0, abs(value)) else value
