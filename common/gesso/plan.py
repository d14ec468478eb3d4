"""What the operator decided: the mix, the share of each level, the price, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LevelPlan:
    """One level of the ladder: K, the workers assigned to it, its share of the load (0 to 1)."""

    skipped_steps: int
    workers: int
    share: float


@dataclass(frozen=True)
class Plan:
    """A decision of the slow loop; revisions only grow.

    `price` is the dual value of capacity: the relative quality that one more worker-second would buy,
    in units of one image's relative quality per worker-second. 0 when capacity does not bind.
    """

    revision: int
    made_at_s: float
    levels: tuple[LevelPlan, ...]
    price: float
    reason: str
    message: str

    @property
    def mix(self) -> dict[int, int]:
        """Workers by K, levels without a worker left out."""
        return {level.skipped_steps: level.workers for level in self.levels if level.workers}

    @property
    def mix_text(self) -> str:
        """The mix as `kubectl get` shows it: `0:5,10:2,25:1`."""
        return ",".join(f"{k}:{n}" for k, n in sorted(self.mix.items()))


@dataclass(frozen=True)
class QualityCurve:
    """Predicted relative quality of one prompt (or class of prompts) at each K of the ladder.

    `quality[i]` belongs to `skipped_steps[i]`; K = 0 comes first and has quality 1.
    """

    skipped_steps: tuple[int, ...]
    quality: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.skipped_steps) != len(self.quality) or not self.skipped_steps:
            raise ValueError("quality: one value for each of skipped_steps")
        if self.skipped_steps[0] != 0 or list(self.skipped_steps) != sorted(
            set(self.skipped_steps)
        ):
            raise ValueError(
                f"skipped_steps: {self.skipped_steps} is not allowed: ascending, from 0"
            )

    def at(self, skipped_steps: int) -> float:
        """Quality at a K of the ladder. Raises KeyError for any other K."""
        try:
            return self.quality[self.skipped_steps.index(skipped_steps)]
        except ValueError:
            raise KeyError(skipped_steps) from None


@dataclass(frozen=True)
class PromptClass:
    """Prompts whose quality curves are alike, and how often they came."""

    name: str
    weight: float
    curve: QualityCurve
