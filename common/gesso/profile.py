"""How long a device takes: the times that planner, router and simulator reckon with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Profile:
    """Measured times of one model on one device.

    `step_seconds[b - 1]` is one tick of a denoising batch of `b` requests, guidance included, in seconds; its
    length is the largest batch. `encode_seconds` and `decode_seconds` are per image. `p95_ratio` is the 95th
    percentile of latency over its mean, waiting apart: 1 where times do not vary, or nobody measured how they
    do.
    """

    device: str
    steps: int
    encode_seconds: float
    decode_seconds: float
    step_seconds: tuple[float, ...]
    p95_ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: {self.steps} is not allowed: at least 1")
        if not self.step_seconds:
            raise ValueError(
                "step_seconds: empty is not allowed: one time for each batch size from 1"
            )
        times = (self.encode_seconds, self.decode_seconds, *self.step_seconds)
        if any(not math.isfinite(t) or t < 0 for t in times) or min(self.step_seconds) <= 0:
            raise ValueError(f"{times}: times are finite, step times above 0")
        if not 1 <= self.p95_ratio < math.inf:
            raise ValueError(f"p95_ratio: {self.p95_ratio} is not allowed: 1 or more, finite")

    @property
    def max_batch(self) -> int:
        """The largest measured batch."""
        return len(self.step_seconds)

    @property
    def fixed_seconds(self) -> float:
        """Device seconds of an image that do not depend on K."""
        return self.encode_seconds + self.decode_seconds

    @cached_property
    def busy_step_seconds(self) -> float:
        """Device seconds of one denoising step of one image on a worker kept at its best batch."""
        batch = self.best_batch()
        return self.tick_seconds(batch) / batch

    def tick_seconds(self, batch: int) -> float:
        """Seconds of one tick of `batch` requests; beyond the largest batch, of the largest."""
        if batch < 1:
            raise ValueError(f"batch: {batch} is not allowed: at least 1")
        return self.step_seconds[min(batch, self.max_batch) - 1]

    def latency_seconds(self, skipped_steps: int, batch: int = 1) -> float:
        """Latency of an image at K in a batch of constant size, no waiting."""
        return self.fixed_seconds + (self.steps - skipped_steps) * self.tick_seconds(batch)

    def best_batch(self, latency_bound_seconds: float = math.inf) -> int:
        """The batch of the highest throughput at K = 0 whose latency stays within the bound; at least 1."""
        if latency_bound_seconds == math.inf:
            return self._best_batch
        return self._best_within(latency_bound_seconds)

    @cached_property
    def _best_batch(self) -> int:
        return self._best_within(math.inf)

    def _best_within(self, latency_bound_seconds: float) -> int:
        best, best_rate = 1, 0.0
        for batch in range(1, self.max_batch + 1):
            if batch > 1 and self.latency_seconds(0, batch) > latency_bound_seconds:
                break
            rate = batch / self.tick_seconds(batch)
            if rate > best_rate * 1.001:
                best, best_rate = batch, rate
        return best

    def work_seconds(self, skipped_steps: int, batch: int | None = None) -> float:
        """Device seconds that one image at K takes of a worker kept at `batch` (None: the best batch)."""
        size = self.best_batch() if batch is None else batch
        return self.fixed_seconds + (self.steps - skipped_steps) * self.tick_seconds(size) / size

    def throughput(self, skipped_steps: int, batch: int | None = None) -> float:
        """Images per second of one worker kept busy at K."""
        return 1.0 / self.work_seconds(skipped_steps, batch)


def mean_profile(profiles: Sequence[Profile]) -> Profile:
    """The profile of the average worker of one device class.

    Batches beyond the smallest of the given are left out. Raises ValueError on none, or on unlike `steps`.
    """
    if not profiles:
        raise ValueError("profiles: none given")
    if len({p.steps for p in profiles}) != 1:
        raise ValueError(f"profiles: steps differ: {sorted({p.steps for p in profiles})}")
    n = len(profiles)
    width = min(p.max_batch for p in profiles)
    return Profile(
        device=profiles[0].device,
        steps=profiles[0].steps,
        encode_seconds=sum(p.encode_seconds for p in profiles) / n,
        decode_seconds=sum(p.decode_seconds for p in profiles) / n,
        step_seconds=tuple(sum(p.step_seconds[b] for p in profiles) / n for b in range(width)),
        p95_ratio=sum(p.p95_ratio for p in profiles) / n,
    )
