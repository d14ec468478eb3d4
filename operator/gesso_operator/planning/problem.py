"""The solver's instance: workers by device class and variant, what they can serve, and what a change costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from gesso.plan import PromptClass

Table = tuple[tuple[float, ...], ...]
Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Problem:
    """One instance. Tables are [device class][variant]; a pool is a device class with a model.

    `variants` are (model, K). `work_s` is worker-seconds per image, inf where the device cannot hold the
    model; `bound` the utilisation allowed (0: never in time); `rate` in images/s. `held` counts workers by
    [device][model] along `models`, `current` those of them with a level by [device][variant]. Between
    `least` and `most` workers of a class may be there; both are what is held where a fleet has its size.
    Costs are in relative quality per second: `level_cost` for each worker that leaves its variant,
    `load_cost` [device][model] for each that comes to a model, `worker_cost` for each worker there is,
    `start_cost` for each that is to be started (at least what loading the own model costs), `mismatch_cost`
    for each worker-second at another level than its worker's. `slack` is the share of the capacity that is
    not spent on a backlog. `keep` says that all of `current` stays, `keep_models` that no worker changes its
    model.
    """

    devices: tuple[str, ...]
    variants: tuple[tuple[str, int], ...]
    work_s: Table
    bound: Table
    rate: float
    classes: tuple[PromptClass, ...]
    held: Counts
    current: Counts
    least: tuple[int, ...]
    most: tuple[int, ...]
    min_quality: float = 0.0
    shed_penalty: float = 10.0
    level_cost: float = 0.0
    load_cost: Table = ()
    worker_cost: float = 0.0
    start_cost: float = 0.0
    mismatch_cost: float = 0.0
    stray_share: float = 0.0
    slack: float = 1.0
    keep: bool = False
    keep_models: bool = False

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model, in the order of the variants."""
        return tuple(dict.fromkeys(m for m, _ in self.variants))

    @cached_property
    def model_of(self) -> tuple[int, ...]:
        """Index of each variant's model in `models`."""
        return tuple(self.models.index(m) for m, _ in self.variants)

    @cached_property
    def workers(self) -> int:
        """Workers that are held."""
        return sum(map(sum, self.held))

    @cached_property
    def elastic(self) -> bool:
        """Whether the number of workers is open."""
        return self.least != self.most

    def possible(self, d: int, v: int) -> bool:
        """Whether a worker of the d-th class can serve the v-th variant at all."""
        return math.isfinite(self.work_s[d][v])

    def allowed(self, c: int, d: int, v: int) -> bool:
        """Whether class c may be served there: in time, and not below the floor; full generation never is
        below.
        """
        if not self.possible(d, v) or self.bound[d][v] <= 0:
            return False
        quality = self.classes[c].curve.quality[v]
        return v == 0 or (quality > 0 and quality >= self.min_quality)

    def need_s(self, d: int, v: int) -> float:
        """Provided worker-seconds that an image takes, the idle time that waiting needs included."""
        return self.work_s[d][v] / self.bound[d][v]

    def class_rate(self, c: int) -> float:
        """Images per second of a class."""
        return self.rate * self.classes[c].weight

    @cached_property
    def stray_values(self) -> tuple[float, ...]:
        """Objective of one worker at each variant, whatever is served there."""
        if not self.workers:
            return (0.0,) * len(self.variants)
        # In overload there are no strays beyond what the workers could take in full.
        full = sum(sum(row) / self.work_s[d][0] for d, row in enumerate(self.held))
        share = self.stray_share * min(self.rate, full) / self.workers
        return tuple(
            share * sum(c.weight * c.curve.quality[v] for c in self.classes)
            for v in range(len(self.variants))
        )

    def at_slowest(self) -> Counts:
        """The workers that are held, each at the slowest level of its model."""
        first = [self.model_of.index(m) for m in range(len(self.models))]
        return tuple(
            tuple(
                row[self.model_of[v]] if v == first[self.model_of[v]] else 0
                for v in range(len(self.variants))
            )
            for row in self.held
        )

    def stray_of(self, counts: Counts) -> float:
        """Objective of workers at their variants, whatever is served there."""
        return sum(
            n * worth for row in counts for n, worth in zip(row, self.stray_values, strict=True)
        )

    @property
    def pools(self) -> tuple[tuple[int, int], ...]:
        """(device, model) of each pool that holds workers."""
        return tuple(
            (d, m)
            for d in range(len(self.devices))
            for m in range(len(self.models))
            if self.held[d][m] > 0
        )

    def arrivals(self, counts: Counts) -> Counts:
        """Workers that come to each [device][model] under these counts."""
        return tuple(
            tuple(
                max(
                    0,
                    sum(n for v, n in enumerate(row) if self.model_of[v] == m) - self.held[d][m],
                )
                for m in range(len(self.models))
            )
            for d, row in enumerate(counts)
        )

    def leavers(self, counts: Counts) -> int:
        """Workers that leave their variant under these counts."""
        return sum(
            max(0, was - now)
            for before, after in zip(self.current, counts, strict=True)
            for was, now in zip(before, after, strict=True)
        )

    def change_cost(self, counts: Counts) -> float:
        """What it costs to get to these counts, and to have so many workers."""
        cost = self.level_cost * self.leavers(counts)
        for d, row in enumerate(self.arrivals(counts)):
            started = max(0, sum(counts[d]) - sum(self.held[d]))
            for m, n in enumerate(row):
                # A started worker comes with the service's own model.
                loads = n if m else max(0, n - started)
                cost += self.load_cost[d][m] * loads if self.load_cost else 0.0
            if self.elastic:
                cost += self.start_cost * started + self.worker_cost * sum(counts[d])
        return cost
