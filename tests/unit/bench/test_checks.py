"""What the decisions bench demands of static mixes, on made-up results."""

from __future__ import annotations

from typing import Any

import pytest
from decisions.cases import CASES
from decisions.checks import Check, checks


def row(violations: float, quality: float) -> dict[str, Any]:
    figures = {"violation_ratio": violations, "relative_quality": quality, "switches": 4.0}
    return {name: {"mean": x, "least": x, "most": x} for name, x in figures.items()}


def of_static_mixes(**mixes: tuple[float, float]) -> list[Check]:
    rows = {"QualityAware": row(0.0004, 0.97)}
    rows |= {name.replace("_", ":").replace("and", "+"): row(*m) for name, m in mixes.items()}
    return [c for c in checks({"model-family@5x": rows}) if "static" in c.says]


def test_every_static_mix_is_in_the_case() -> None:
    family = next(c for c in CASES if c.scenario == "model-family")
    assert [f"Static:{8 - n}+{n}" for n in range(9)] == [p for p in family.policies if ":" in p]


def test_the_best_mix_in_time_is_what_counts() -> None:
    mixes = {"Static_8and0": (0.2, 0.99), "Static_6and2": (0.0, 0.962), "Static_0and8": (0.0, 0.88)}
    (found,) = of_static_mixes(**mixes)
    assert found.measured == pytest.approx(0.8)
    assert found.holds
    assert "2 static mixes" in found.says
    (near,) = of_static_mixes(**mixes, Static_7and1=(0.001, 0.9675))
    assert near.measured == pytest.approx(0.25)
    assert not near.holds


def test_where_no_mix_is_in_time_nothing_is_demanded() -> None:
    assert of_static_mixes(Static_8and0=(0.2, 0.99)) == []
    assert of_static_mixes() == []
