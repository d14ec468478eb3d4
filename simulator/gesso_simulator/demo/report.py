"""What the demo found: figures of one run, and the intervals that go with measured quality. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gesso_simulator.demo.play import Ending, Outcome


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class QualityMeasurement:
    """Quality of served images relative to the same prompt and seed at K = 0, over `samples` drawn at random.

    `attributes` and `clip_score` are ratios of means: by the attribute checker, and by CLIPScore.
    """

    samples: int
    attributes: Interval
    clip_score: Interval
    attributes_at_k0: float


@dataclass(frozen=True)
class MixSample:
    """What the operator said at a second of the run."""

    at_s: float
    mix: str
    reason: str
    message: str
    revision: int
    workers_ready: int


def bootstrap_ratio(
    served: Sequence[float], reference: Sequence[float], rng: np.random.Generator, draws: int = 4000
) -> Interval:
    """Ratio of the means of paired values, with its percentile bootstrap interval (Efron, 1979).

    Raises ValueError on none, or on unlike lengths.
    """
    a, b = np.asarray(served, float), np.asarray(reference, float)
    if not len(a) or len(a) != len(b):
        raise ValueError(f"served and reference: {len(a)} and {len(b)} values, not as many of each")
    picks = rng.integers(len(a), size=(draws, len(a)))
    ratios = a[picks].mean(axis=1) / b[picks].mean(axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Interval(float(a.mean() / b.mean()), float(low), float(high))


def mix_changes(samples: Sequence[MixSample]) -> int:
    """How often the mix differed from the one seen before; seconds without a known mix do not count."""
    mixes = [sample.mix for sample in samples if sample.mix]
    return sum(a != b for a, b in pairwise(mixes))


def summarise(
    outcomes: Sequence[Outcome],
    slo_seconds: float,
    seconds: float,
    mixes: Sequence[MixSample],
    quality: QualityMeasurement | None,
    restarts: Sequence[str] = (),
) -> dict[str, Any]:
    """The figures of one run, as `demo/report.json` holds them."""
    served = [o for o in outcomes if o.served]
    count = {ending: sum(o.ending is ending for o in outcomes) for ending in Ending}
    violations = len(outcomes) - count[Ending.IN_SLO]
    latencies = [o.latency_s for o in served]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "offered": len(outcomes),
        "served_in_slo": count[Ending.IN_SLO],
        "late": count[Ending.LATE],
        "dropped": count[Ending.DROPPED],
        "shed": count[Ending.SHED],
        "lost": count[Ending.LOST],
        "slo_seconds": slo_seconds,
        "slo_violations": violations / len(outcomes) if outcomes else None,
        "relative_quality": quality.attributes.value if quality else None,
        "quality": asdict(quality) if quality else None,
        "predicted_quality": mean([o.predicted_quality for o in served]),
        "mean_skipped_steps": mean([o.skipped_steps for o in served]),
        "cache_hit_rate": mean([float(o.skipped_steps > 0) for o in served]),
        "served_by_skipped_steps": {
            str(k): sum(o.skipped_steps == k for o in served)
            for k in sorted({o.skipped_steps for o in served})
        },
        "mix_changes": mix_changes(mixes),
        "images_per_s": len(served) / seconds,
        "latency_p50_seconds": float(np.percentile(latencies, 50)) if latencies else None,
        "latency_p95_seconds": float(np.percentile(latencies, 95)) if latencies else None,
        "retried": sum(o.attempts > 1 for o in served),
        "worker_restarts": list(restarts),
        "lost_because": sorted({o.detail for o in outcomes if o.ending is Ending.LOST}),
    }
