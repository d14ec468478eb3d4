"""What the operator decided: the mix, the share of each level, the price, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LevelPlan:
    """One variant of the plan: K of a model, the workers assigned to it, its share of the load (0 to 1).

    `model` is empty for the service's own model, else the name of another variant's; `device` is the
    device class of these workers, empty where the fleet has one class only.
    """

    skipped_steps: int
    workers: int
    share: float
    model: str = ""
    device: str = ""

    @property
    def variant(self) -> str:
        """`10`: K = 10 of the own model; `lightning`: K = 0 of another model; `lightning/10`: its K = 10."""
        if not self.model:
            return str(self.skipped_steps)
        return f"{self.model}/{self.skipped_steps}" if self.skipped_steps else self.model


@dataclass(frozen=True)
class Plan:
    """A decision of the slow loop; revisions only grow.

    `price` is the dual value of capacity: the relative quality that one more worker-second would buy,
    in units of one image's relative quality per worker-second. 0 when capacity does not bind.
    `price_curve` is that price at other backlogs: points (backlog in seconds per worker, price), both
    ascending, straight lines between them, constant beyond; empty where a policy has none.
    `device_worth` is what a second of a device class is worth relative to the fleet's average second, by
    class; absent classes count 1. Another model that workers hold stands there under its own name, relative to
    the same second. `route` is the row-stochastic matrix P[optimal K][served K'] over the ladder, for policies
    that redirect by probabilities; empty for others.
    """

    revision: int
    made_at_s: float
    levels: tuple[LevelPlan, ...]
    price: float
    reason: str
    message: str
    price_curve: tuple[tuple[float, float], ...] = ()
    device_worth: tuple[tuple[str, float], ...] = ()
    route: tuple[tuple[float, ...], ...] = ()

    @property
    def mix(self) -> dict[int, int]:
        """Workers of the own model by K, over all device classes; levels without a worker left out."""
        mix: dict[int, int] = {}
        for level in self.levels:
            if level.workers and not level.model:
                mix[level.skipped_steps] = mix.get(level.skipped_steps, 0) + level.workers
        return dict(sorted(mix.items()))

    @property
    def mix_text(self) -> str:
        """The mix as `kubectl get` shows it: `0:5,10:2,25:1`; other models by name: `0:7,lightning:1`."""
        other: dict[str, int] = {}
        for level in self.levels:
            if level.workers and level.model:
                other[level.variant] = other.get(level.variant, 0) + level.workers
        own = [(str(k), n) for k, n in self.mix.items()]
        return ",".join(f"{variant}:{n}" for variant, n in (*own, *sorted(other.items())))


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
