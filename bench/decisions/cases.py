"""Which scenarios, SLOs and policies the decisions bench runs."""

from __future__ import annotations

from dataclasses import dataclass

from gesso_simulator.baselines.static import static_mixes
from gesso_simulator.engine.systems import LIVE

#: Kubernetes' autoscaler over workers at K = 0 at several targets: utilisation, requests waiting per worker.
HPA = tuple(
    [f"HPAUtilization@{t:g}" for t in (0.4, 0.45, 0.5, 0.6, 0.7)]
    + [f"HPAQueue@{t:g}" for t in (0.5, 0.6, 0.7, 0.8, 1, 2)]
)


@dataclass(frozen=True)
class Case:
    """One row of the bench: a scenario at an SLO, and who is compared there."""

    scenario: str
    slo: str
    policies: tuple[str, ...]
    load_scale: float = 1.0
    bounds: bool = True

    @property
    def key(self) -> str:
        """Its name in results."""
        scale = (
            f"-{self.load_scale:g}x" if self.load_scale != 1 or self.scenario == "constant" else ""
        )
        return f"{self.scenario}{scale}@{self.slo}"


CASES = (
    Case("twitter", "3x", LIVE),
    Case("twitter", "5x", LIVE),
    Case("twitter-heavy", "3x", LIVE),
    Case("twitter-heavy", "5x", LIVE),
    Case("bursty", "5x", LIVE),
    Case("model-family", "5x", ("QualityAware", "BacklogPrice", "Proteus", *static_mixes(8))),
    Case("two-gpu-classes", "5x", LIVE),
    Case("elastic", "5x", ("QualityAware", *HPA)),
    Case("constant", "3x", ("QualityAware",), 0.5, bounds=False),
    Case("constant", "3x", ("QualityAware",), 0.9, bounds=False),
    Case("constant", "3x", ("QualityAware",), 1.5, bounds=False),
    Case("flash-crowd", "3x", ("QualityAware", "BacklogPrice"), bounds=False),
    Case("flash-crowd-family", "3x", ("QualityAware", "BacklogPrice"), bounds=False),
    Case("worker-loss", "5x", ("QualityAware", "BacklogPrice")),
)
