"""The best mean quality that a pool can give for each amount of worker-seconds per image: a concave frontier.

Refusing everything costs nothing but the penalty; from there each step of a class to a slower variant buys
quality for worker-seconds, dearest steps last. So one pooled linear program is a sorted list (the linear
relaxation of the multiple-choice knapsack: Sinha and Zoltners 1979).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gesso.plan import PromptClass


@dataclass(frozen=True)
class Step:
    """A step along the frontier: `weight` of the images go from a variant (None: refused) to another.

    `seconds` worker-seconds per image of the whole load, `quality` gained, refusals' penalty included.
    """

    prompt_class: int
    weight: float
    before: int | None
    after: int
    seconds: float
    quality: float

    @property
    def slope(self) -> float:
        """Quality for a worker-second."""
        return self.quality / self.seconds if self.seconds > 0 else math.inf


@dataclass(frozen=True)
class Frontier:
    """`seconds[i]` worker-seconds per offered image give at best `value[i]` per offered image; straight
    lines between.

    `value` counts refusals at the penalty, `quality` leaves them out, `served` is the share of images served.
    """

    variants: int
    steps: tuple[Step, ...]
    seconds: tuple[float, ...]
    value: tuple[float, ...]
    served: tuple[float, ...]

    @property
    def fastest_s(self) -> float:
        """Worker-seconds per offered image from which none needs to be refused; inf where some always are."""
        whole = max(self.served)
        return self.seconds[self.served.index(whole)] if whole > 1 - 1e-9 else math.inf

    @property
    def full_s(self) -> float:
        """Worker-seconds per offered image beyond which nothing more is gained."""
        return self.seconds[-1]

    def at(self, seconds: float) -> float:
        """The best value per offered image."""
        return self._between(self.value, seconds)

    def quality(self, seconds: float, penalty: float) -> float:
        """Mean quality of the served images; 1 where none can be."""
        served = self._between(self.served, seconds)
        if served <= 0:
            return 1.0
        return (self.at(seconds) + penalty * (1.0 - served)) / served

    def shed(self, seconds: float) -> float:
        """Share of the images that is refused."""
        return max(0.0, 1.0 - self._between(self.served, seconds))

    def dual(self, seconds: float) -> float:
        """What a little more would buy, per worker-second; 0 at the end."""
        i = bisect.bisect_right(self.seconds, seconds * (1 + 1e-12)) - 1
        return self.steps[i].slope if 0 <= i < len(self.steps) else 0.0

    def split(self, seconds: float) -> list[list[float]]:
        """Share of all images that each class gets at each variant, [class][variant]."""
        classes = 1 + max((s.prompt_class for s in self.steps), default=-1)
        shares = [[0.0] * self.variants for _ in range(classes)]
        for i, step in enumerate(self.steps):
            room = seconds - self.seconds[i]
            if room <= 0:
                break
            part = 1.0 if step.seconds <= 0 else min(1.0, room / step.seconds)
            shares[step.prompt_class][step.after] += part * step.weight
            if step.before is not None:
                shares[step.prompt_class][step.before] -= part * step.weight
        return [[max(0.0, x) for x in row] for row in shares]

    def _between(self, ys: Sequence[float], seconds: float) -> float:
        i = bisect.bisect_right(self.seconds, seconds) - 1
        if i < 0:
            return ys[0]
        if i >= len(self.seconds) - 1:
            return ys[-1]
        x0, x1 = self.seconds[i], self.seconds[i + 1]
        return ys[i] + (ys[i + 1] - ys[i]) * (seconds - x0) / (x1 - x0)


def frontier(
    classes: Sequence[PromptClass],
    seconds: Sequence[float],
    allowed: Sequence[Sequence[bool]],
    penalty: float,
) -> Frontier:
    """The frontier of classes over variants that take `seconds` of a worker each; `allowed[class][variant]`."""
    steps: list[Step] = []
    for c, prompts in enumerate(classes):
        points = [
            (seconds[v], prompts.curve.quality[v] + penalty, v)
            for v in range(len(seconds))
            if allowed[c][v]
        ]
        x = y = 0.0
        before: int | None = None
        # The upper hull from (0, 0), in order of slope.
        while True:
            ahead = [p for p in points if p[1] > y + 1e-12 and p[0] > x]
            if not ahead or prompts.weight <= 0:
                break
            nearest = max(ahead, key=lambda p: ((p[1] - y) / (p[0] - x), p[0]))
            dx, dy = nearest[0] - x, nearest[1] - y
            steps.append(
                Step(
                    c, prompts.weight, before, nearest[2], prompts.weight * dx, prompts.weight * dy
                )
            )
            x, y, before = nearest
    steps.sort(key=lambda s: -s.slope)
    total = sum(c.weight for c in classes)
    at, value, served = [0.0], [-penalty * total], [0.0]
    for step in steps:
        at.append(at[-1] + step.seconds)
        value.append(value[-1] + step.quality)
        served.append(served[-1] + (step.weight if step.before is None else 0.0))
    return Frontier(len(seconds), tuple(steps), tuple(at), tuple(value), tuple(served))
