"""Figures, JSON, requests, table and plot of a run."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import results_kit as kit
from PIL import Image
from rich.console import Console

from gesso_simulator.reports.document import document, write_document
from gesso_simulator.reports.figures import BoundFigures, distance, over_time, summarise
from gesso_simulator.reports.plot import write_plot
from gesso_simulator.reports.requests import COLUMNS, write_requests
from gesso_simulator.reports.table import heading, policy_table

BOUNDS = {
    "informed": BoundFigures(0.25, 0.9),
    "clairvoyant": BoundFigures(0.25, 0.95, 1.5),
}


def test_figures_count_every_request_once() -> None:
    run = kit.six()
    found = summarise(kit.played(run), run.slo_s)
    assert (found.offered, found.served_in_slo, found.late, found.shed, found.lost) == (
        6,
        3,
        1,
        1,
        1,
    )
    assert found.violation_ratio == 0.5
    assert found.relative_quality == pytest.approx((1 + 0.9 + 0.7) / 3)
    assert found.mean_skipped_steps == pytest.approx(10 / 3)
    assert found.latency_p50_s == 3
    away = distance(found, BOUNDS["informed"])
    assert away.violation_points == pytest.approx(25)
    assert away.quality_points == pytest.approx(90 - 260 / 3)


def test_figures_where_nothing_was_served_or_asked() -> None:
    run = kit.six()
    result = replace(kit.played(run), outcome=np.full(6, 2, dtype=np.int8))
    found = summarise(result, run.slo_s)
    assert found.violation_ratio == 1
    assert found.relative_quality is None
    assert distance(found, BOUNDS["informed"]).quality_points is None


def test_an_outcome_that_contradicts_the_slo_is_noticed() -> None:
    run = kit.six()
    with pytest.raises(ValueError, match=r"served after 4 s is not allowed: within 3 s"):
        summarise(kit.played(run), 3.0)


def test_over_time_adds_up() -> None:
    run = kit.six()
    series = over_time(kit.played(run), 120.0, 50.0)
    assert series.starts_s.tolist() == [0, 50, 100]
    minutes = np.array([50, 50, 20]) / 60
    assert (series.offered * minutes).tolist() == pytest.approx([2, 3, 1])
    assert (series.served * minutes).tolist() == pytest.approx([2, 0, 1])
    assert (series.violations * minutes).tolist() == pytest.approx([0, 3, 0])
    assert series.quality[0] == pytest.approx(0.95)
    assert np.isnan(series.quality[1])


def test_json_has_the_agreed_shape(tmp_path: Path) -> None:
    run = kit.six()
    figures = {"QualityAware": summarise(kit.played(run), run.slo_s)}
    path = tmp_path / "out.json"
    write_document(path, document(run, 7, figures, BOUNDS))
    found = json.loads(path.read_text())
    assert (found["scenario"], found["seed"], found["slo_seconds"]) == ("model-family", 7, 10)
    assert found["data"] == "synthetic"
    policy = found["policies"]["QualityAware"]
    assert {
        "offered": 6,
        "served_in_slo": 3,
        "late": 1,
        "shed": 1,
        "lost": 1,
        "violation_ratio": 0.5,
        "plan_changes": 2,
        "switches": 3,
    }.items() <= policy.items()
    assert {"relative_quality", "mean_skipped_steps", "worker_hours"} <= policy.keys()
    assert found["bounds"]["informed"] == {"violation_ratio": 0.25, "relative_quality": 0.9}
    assert found["bounds"]["clairvoyant"]["worker_hours"] == 1.5


def test_json_tells_further_figures_of_a_policy_beside_the_others() -> None:
    run = kit.six()
    played = replace(kit.played(run), extra={"cache_hit_ratio": 0.5})
    found = document(run, 7, {"Nirvana": summarise(played, run.slo_s)}, BOUNDS)
    policy = found["policies"]["Nirvana"]
    assert policy["cache_hit_ratio"] == 0.5
    assert "extra" not in policy


def test_json_refuses_what_is_not_finite(tmp_path: Path) -> None:
    run = kit.six()
    figures = {"A": replace(summarise(kit.played(run), run.slo_s), worker_hours=float("nan"))}
    with pytest.raises(ValueError, match=r"policies\.A\.worker_hours: nan is not allowed"):
        write_document(tmp_path / "out.json", document(run, 7, figures, {}))
    assert not (tmp_path / "out.json").exists()


def test_requests_are_one_row_each_and_equal_bytes_for_equal_runs(tmp_path: Path) -> None:
    run = kit.six()
    results = [kit.played(run, "A"), kit.played(run, "B")]
    one, two = tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"
    write_requests(one, run, results)
    write_requests(two, run, results)
    assert one.read_bytes() == two.read_bytes()
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(one.read_bytes()).decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["policy"] for row in rows] == ["A"] * 6 + ["B"] * 6
    assert rows[1] == {
        "policy": "A",
        "request": "1",
        "arrival_s": "20.0000",
        "prompt_row": "101",
        "predicted_k": "5",
        "served_k": "10",
        "worker": "worker-1",
        "start_s": "21.0000",
        "finish_s": "24.0000",
        "outcome": "served",
        "relative_quality": "0.9",
    }
    assert [row["outcome"] for row in rows[:6]] == [
        *("served", "served", "late", "shed", "lost", "served")
    ]
    assert [row["relative_quality"] for row in rows[:6]] == ["1", "0.9", "", "", "", "0.7"]
    assert rows[3]["served_k"] == rows[3]["worker"] == rows[3]["start_s"] == ""
    assert rows[4]["finish_s"] == ""
    assert rows[5]["served_k"] == "lightning"


def test_the_table_tells_policies_bounds_and_distances() -> None:
    run = kit.six()
    figures = {"QualityAware": summarise(kit.played(run), run.slo_s)}
    console = Console(width=80, file=io.StringIO(), highlight=False)
    console.print(policy_table(figures, BOUNDS))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if line.startswith("QualityAware"))
    assert row.split() == [
        *("QualityAware", "50.000", "86.67", "3.3", "2", "3", "0.3"),
        *("+25.00/-3.33", "+25.00/-8.33"),
    ]
    bound = next(line for line in text.splitlines() if line.startswith("(clairvoyant)"))
    assert bound.split() == ["(clairvoyant)", "25.000", "95.00", "1.5"]
    assert "…" not in text


def test_the_heading_says_where_the_data_is_from() -> None:
    lines = heading(kit.six())
    assert lines[0].startswith("model-family: 6 requests in 2 minutes")
    assert "SLO 10 s (3.93x)" in lines[0]
    assert lines[1].startswith("data: synthetic")
    assert any("0.88" in line and "assumed" in line for line in lines)


@pytest.mark.parametrize("bounds", [BOUNDS, {}], ids=["bounds", "none"])
def test_the_plot_is_a_picture(tmp_path: Path, bounds: dict[str, BoundFigures]) -> None:
    run = kit.six()
    empty = replace(kit.played(run, "Nothing"), outcome=np.full(6, 2, dtype=np.int8))
    path = tmp_path / "out.png"
    write_plot(path, run, [kit.played(run), empty], bounds)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 600
        pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 5, "not a blank page"
