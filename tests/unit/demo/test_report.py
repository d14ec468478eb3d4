"""The demo's figures: every request counted once, intervals that cover, honest mix changes."""

import numpy as np
import pytest

from gesso_simulator.demo.play import Ending, Outcome
from gesso_simulator.demo.report import MixSample, bootstrap_ratio, mix_changes, summarise
from gesso_simulator.workloads.sessions import PromptRequest
from gesso_worker.models.tiny.scenes import sample_scene

SCENE = sample_scene(np.random.default_rng(0))


def outcome(ending: Ending, latency_s: float = 1.0, k: int = 0, attempts: int = 1) -> Outcome:
    request = PromptRequest(0, 0.0, "a red ring", 1, SCENE)
    return Outcome(
        request,
        ending,
        latency_s,
        skipped_steps=k,
        attempts=attempts,
        predicted_quality=1 - k / 100,
    )


def sample(at_s: float, mix: str) -> MixSample:
    return MixSample(at_s, mix, "Reason", "message", 1, 2)


def test_every_request_is_counted_once() -> None:
    endings = [*Ending, Ending.IN_SLO, Ending.SHED]
    figures = summarise([outcome(e) for e in endings], 4.0, 10.0, [], None)
    parts = ("served_in_slo", "late", "dropped", "shed", "lost")
    assert figures["offered"] == len(endings) == sum(figures[p] for p in parts)
    assert figures["slo_violations"] == pytest.approx(5 / 7)


def test_served_means_leave_out_what_was_not_served() -> None:
    outcomes = [outcome(Ending.IN_SLO, k=10), outcome(Ending.LATE, k=20), outcome(Ending.SHED, k=0)]
    figures = summarise(outcomes, 4.0, 10.0, [], None)
    assert figures["mean_skipped_steps"] == 15
    assert figures["cache_hit_rate"] == 1
    assert figures["images_per_s"] == 0.2


def test_a_run_without_any_served_request_has_no_means() -> None:
    figures = summarise([outcome(Ending.LOST)], 4.0, 10.0, [], None)
    assert figures["lost"] == 1
    assert figures["mean_skipped_steps"] is None
    assert figures["latency_p95_seconds"] is None


def test_mix_changes_ignore_gaps() -> None:
    mixes = [sample(i, m) for i, m in enumerate(["", "0:2", "0:2", "", "0:2", "0:1,10:1", "0:2"])]
    assert mix_changes(mixes) == 2


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.1])
def test_the_interval_covers_the_true_ratio(ratio: float) -> None:
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        reference = rng.uniform(0.6, 1.0, 200)
        served = reference * ratio + rng.normal(0, 0.1, 200)
        interval = bootstrap_ratio(served.tolist(), reference.tolist(), rng, draws=400)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= ratio <= interval.high
    assert covered >= 51


def test_unlike_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        bootstrap_ratio([1.0, 1.0], [1.0], np.random.default_rng(0))
