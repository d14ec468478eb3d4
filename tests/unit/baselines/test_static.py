"""Static mixes of models: who holds what, that nobody ever loads another, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from gesso_simulator.baselines.static import is_static, play, static_mixes, with_mix
from gesso_simulator.data.sources import substitutes
from gesso_simulator.reports.figures import summarise
from gesso_simulator.scenarios.build import Wishes, build
from gesso_simulator.scenarios.spec import ScenarioRun


def family(load_scale: float = 0.02, name: str = "flash-crowd-family") -> ScenarioRun:
    return build(name, wishes=Wishes(load_scale=load_scale), sources=substitutes())


def test_the_mixes_of_a_fleet_go_from_one_model_to_the_other() -> None:
    run = family()
    names = static_mixes(8)
    assert len(names) == 9
    assert all(map(is_static, names))
    held = [Counter(w.model for w in with_mix(run, name).workers) for name in names]
    assert [h["lightning"] for h in held] == list(range(9))
    assert all(h[""] + h["lightning"] == 8 for h in held)


@pytest.mark.parametrize("policy", ["Static:8+0", "Static:6+2", "Static:0+8"])
def test_nobody_loads_another_model(policy: str) -> None:
    run = family()
    result = play(run, policy, seed=0)
    assert (result.policy, result.switches) == (policy, 0)
    models = {run.variants[v].model for v in result.variant[result.variant >= 0]}
    own, second = map(int, policy.removeprefix("Static:").split("+"))
    # At this load nobody needs the second model where the own one is held.
    assert models == ({""} if own else {"lightning"})
    figures = summarise(result, run.slo_s)
    assert figures.violation_ratio == 0
    assert figures.relative_quality == pytest.approx(1.0 if own else 0.88)
    assert second or own == 8


def test_other_names_are_played_as_they_are() -> None:
    assert play(family(), "ClipperHA", seed=0).policy == "ClipperHA"


@pytest.mark.parametrize(
    ("name", "policy", "problem"),
    [
        ("flash-crowd-family", "Static:6+1", "like Static:7.1, the sum being the 8 workers"),
        ("flash-crowd-family", "Static:two", "like Static:7.1"),
        ("flash-crowd", "Static:6+2", "a fleet of fixed size with a second model"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(name: str, policy: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        play(family(name=name), policy, seed=0)
