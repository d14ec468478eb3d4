"""The price of a worker-second over the live backlog: a Markov decision process of the pool's work.

The state is V, the pool's outstanding work in worker-seconds. Prompts come as a Poisson process of rate r, of
class c with probability w[c]. Served at level K a prompt gives quality q[c,K] and adds work[K]; refused, it
costs the penalty. Between arrivals work goes at the rate d(V) = n s(j): a worker with j images has s(j) of the
throughput that it has at its working batch, and j = 2 V / (n mean work), up to the largest batch, since half of
an image's work is left on average. With little work some workers idle, or run batches that are too small. A
level is open at V while waiting and its latency, work[K] j / s(j) in a batch of j, stay within the deadline.
With h the relative value of a state and g the gain, the average reward per prompt,

    h(V) = sum_c w[c] max( max_K q[c,K] + (U h)(V + work[K]),  (U h)(V) - penalty ) - g

where U h is h after draining for an exponential time of rate r. Policy iteration (Howard 1960; Puterman 1994,
chapter 8) solves it on a grid, h being linear between its points. The price at V is what a unit of work takes
from the value there, (U h(V + light) - U h(V + heavy)) / (heavy - light), between the lightest level and the
heaviest, since levels differ by their work beyond the lightest.

It is control by the drift of a Brownian processing system (Ata, Harrison and Shepp 2005) for a small pool of
jobs. In a large pool the price stays at the dual value of capacity over almost the whole range; in a small one
it rises with the backlog, before it is too late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gesso.plan import PromptClass

Floats = NDArray[np.float64]
_STATES = 121
_ITERATIONS = 20
_MOST_WORKERS = 64.0


@dataclass(frozen=True)
class PricedPool:
    """What the price depends on.

    `workers` are ready workers (a fraction counts), `rate` images/s, `work_s` worker-seconds of an image at
    each variant, `classes` with curves along the same variants (0 or less: not servable), `deadline_s` the
    seconds until an image must be out, `penalty` the relative quality that a refused image costs beyond
    its own. `speeds[j - 1]` is the throughput of a worker with j images over that of its working batch, which
    `work_s` is reckoned at: one number where workers serve one image at a time.
    """

    workers: float
    rate: float
    work_s: tuple[float, ...]
    classes: tuple[PromptClass, ...]
    deadline_s: float
    penalty: float = 10.0
    min_quality: float = 0.0
    speeds: tuple[float, ...] = (1.0,)


@lru_cache(maxsize=512)
def price_curve(pool: PricedPool) -> tuple[tuple[float, float], ...]:
    """Points (backlog in seconds per worker, price in relative quality per worker-second), both ascending.

    Empty where there is nothing to price: no workers, no known rate, no level in time. Total otherwise.
    """
    n, rate = pool.workers, pool.rate
    if not (math.isfinite(n) and n > 0 and math.isfinite(rate) and rate > 0):
        return ()
    if not pool.classes or not pool.work_s or not min(pool.work_s) > 0:
        return ()
    # Larger pools hardly fluctuate; on this grid they would only seem to.
    size = min(n, _MOST_WORKERS)
    n, rate = size, rate * size / n
    work = np.array(pool.work_s, dtype=np.float64)
    quality, weight = _curves(pool)
    if not min(pool.speeds, default=0.0) > 0:
        return ()
    batch = float(len(pool.speeds))
    speeds = np.array((0.0, *pool.speeds))
    # Half an image's work is left on those being served, before anyone waits.
    half = float(work.mean()) / 2
    served = batch * half
    longest = pool.deadline_s - float(work.min()) * min(1.0 / pool.speeds[0], batch) + served
    if not (math.isfinite(longest) and longest > served and weight.sum() > 0):
        return ()
    weight = weight / weight.sum()
    # The last image taken in needs room beyond the state that it was taken in at.
    room = max(float(work.min()), 2.0 * n * longest / _STATES)
    states: Floats = np.linspace(0.0, n * longest + room, _STATES)
    wait = np.maximum(0.0, states / n - served)
    images = np.minimum(batch, states / n / half)
    joined = np.minimum(batch, images + 1.0)
    stretch = joined / np.interp(joined, np.arange(batch + 1), speeds)
    process = _Process(
        quality,
        weight,
        _places(states, work),
        (wait[:, None] + stretch[:, None] * work[None, :] <= pool.deadline_s)
        & (states[:, None] + work[None, :] <= states[-1] + 1e-9),
        _drained(states, rate, n * np.interp(images, np.arange(batch + 1), speeds)),
        pool.penalty,
    )
    value = process.solved()
    after = process.drain @ value
    # Levels differ by work beyond the least: the slope between the lightest and the heaviest decides.
    light, heavy = float(work.min()), float(work.max())
    if heavy - light < 1e-6 * heavy:
        light = 0.0
    low, high = np.minimum(states + light, states[-1]), states + heavy
    # Beyond the last state all are refused, and each refusal costs the penalty.
    beyond = np.maximum(0.0, high - states[-1]) - (states + light - low)
    price = np.interp(low, states, after) - np.interp(high, states, after)
    price = (price + beyond * (pool.penalty + 1.0) / (light or heavy)) / (heavy - light)
    price = np.maximum.accumulate(np.maximum(price, 0.0))
    return tuple(zip((states / n).tolist(), price.tolist(), strict=True))


@dataclass(frozen=True)
class _Process:
    """The process on its grid of S states.

    `quality` (classes, levels), -inf where not servable; `places` the state below V + work (S, levels) and
    how far it lies towards the next; `open` (S, levels); `drain` (S, S) is U.
    """

    quality: Floats
    weight: Floats
    places: tuple[NDArray[np.int64], Floats]
    open: NDArray[np.bool_]
    drain: Floats
    penalty: float

    def solved(self) -> Floats:
        """Relative values (S,), by policy iteration from the policy that looks at quality alone."""
        value = np.zeros(len(self.drain))
        policy: NDArray[np.int64] | None = None
        for _ in range(_ITERATIONS):
            better = self._greedy(self.drain @ value)
            if policy is not None and np.array_equal(better, policy):
                break
            policy = better
            value = self._valued(policy)
        return value

    def _greedy(self, after: Floats) -> NDArray[np.int64]:
        """The best action (S, classes): a level, or the number of levels for refusing."""
        low, share = self.places
        there = after[low] * (1 - share) + after[low + 1] * share
        net = np.where(self.open[:, None, :], self.quality[None] + there[:, None, :], -np.inf)
        refused = np.broadcast_to((after - self.penalty)[:, None, None], (*net.shape[:2], 1))
        best: NDArray[np.int64] = np.concatenate([net, refused], axis=2).argmax(2)
        return best

    def _valued(self, policy: NDArray[np.int64]) -> Floats:
        """Relative values of a policy, 0 in the empty state."""
        low, share = self.places
        size, levels = len(self.drain), self.quality.shape[1]
        state, kind = np.arange(size)[:, None], np.arange(len(self.weight))[None, :]
        served = policy < levels
        level = np.where(served, policy, 0)
        reward = np.where(served, self.quality[kind, level], -self.penalty)
        first = np.where(served, low[state, level], state)
        part = np.where(served, share[state, level], 0.0)
        weight = self.weight[None, :]
        # Counted with weights: summing into an array by index is several times slower.
        row = state * size
        to = np.concatenate((row + first, row + np.minimum(first + 1, size - 1)))
        share_to = np.concatenate((weight * (1 - part), weight * part))
        move = np.bincount(to.ravel(), share_to.ravel(), size * size).reshape(size, size)
        # h - move U h + g = reward, with h = 0 in the first state: its column holds g.
        matrix = np.eye(size) - move @ self.drain
        matrix[:, 0] = 1.0
        solution: Floats = np.linalg.solve(matrix, (weight * reward).sum(1))
        solution[0] = 0.0
        return solution


def _curves(pool: PricedPool) -> tuple[Floats, Floats]:
    """Quality (classes, levels), -inf where a level must not be used, and the classes' weights."""
    quality = np.array([c.curve.quality for c in pool.classes], dtype=np.float64)
    usable = np.isfinite(quality) & (quality > 0) & (quality >= pool.min_quality)
    usable[:, 0] = np.isfinite(quality[:, 0])
    weight = np.array([c.weight for c in pool.classes], dtype=np.float64)
    return np.where(usable, quality, -np.inf), np.where(np.isfinite(weight), weight, 0.0).clip(0.0)


def _places(states: Floats, work: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Where V + work lies on the grid: the state below, and the share of the way to the next."""
    step = states[1] - states[0]
    at = np.minimum((states[:, None] + work[None, :]) / step, len(states) - 1 - 1e-9)
    low = at.astype(np.int64)
    return low, at - low


def _drained(states: Floats, rate: float, speed: Floats) -> Floats:
    """U, shape (S, S): the expectation of a function on the grid after draining for an exponential time."""
    size = len(states)
    step = float(states[1] - states[0])
    matrix = np.zeros((size, size))
    matrix[0, 0] = 1.0
    speeds = speed.tolist()
    for i in range(1, size):
        # Expected arrivals while one step is drained, at the speed in the middle of it.
        x = rate * step / max(1e-12, (speeds[i] + speeds[i - 1]) / 2)
        stays = math.exp(-min(x, 700.0))
        lower = (1.0 - stays * (1.0 + x)) / x if x > 1e-6 else x / 2
        np.multiply(matrix[i - 1], stays, out=matrix[i])
        matrix[i, i] = 1.0 - stays - lower
        matrix[i, i - 1] += lower
    return matrix
