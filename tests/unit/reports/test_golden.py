"""Reports of small runs are what they were; where that is meant to change:

pytest tests/unit/reports/test_golden.py --update-golden
"""

from __future__ import annotations

import json

import golden_kit as kit
import pytest

from gesso_simulator.reports.document import write_document

RENEW = "pytest tests/unit/reports/test_golden.py --update-golden"


@pytest.mark.parametrize("name", kit.NAMES)
def test_the_report_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    path = kit.FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden"):
        write_document(path, kit.report(name))
    golden = json.loads(path.read_text(encoding="utf-8"))
    found = json.loads(json.dumps(kit.report(name)))
    lines = list(kit.differences(golden, found))
    if lines:
        pytest.fail(
            "\n".join([f"{path.name} differs; if that is meant: {RENEW}", *lines]), pytrace=False
        )


def test_every_golden_report_has_its_case() -> None:
    assert sorted(p.stem for p in kit.FOLDER.iterdir()) == sorted(kit.NAMES)


def test_the_cases_are_of_the_kind_that_their_names_say() -> None:
    constant, crowd, loss = (kit.report(name)["policies"] for name in kit.NAMES)
    assert constant["QualityAware"]["violation_ratio"] < 0.01
    assert constant["QualityAware"]["relative_quality"] > 0.97
    assert crowd["ClipperHA"]["violation_ratio"] > 2 * crowd["QualityAware"]["violation_ratio"]
    assert loss["QualityAware"]["mean_skipped_steps"] > 0
    # A worker is away for 80 of 240 s and what it had is drained.
    assert loss["QualityAware"]["worker_hours"] < constant["QualityAware"]["worker_hours"]


def test_what_differs_is_told_field_by_field() -> None:
    golden = {"a": 1, "b": {"c": 0.5, "d": [1, 2.0], "gone": 0}, "e": None, "n": 1.0, "l": [1]}
    found = {"a": 2, "b": {"c": 0.5 + 1e-9, "d": [1, 2.1]}, "e": 0.0, "n": 1, "l": [], "new": 0}
    assert list(kit.differences(golden, found)) == [
        "a: 2, golden 1",
        "b.d[1]: 2.1, golden 2.0",
        "b.gone: in the golden report only",
        "e: 0.0, golden None",
        "l: [], golden [1]",
        "new: in the new report only",
    ]
