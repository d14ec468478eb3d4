"""The demo's pictures, from a handful of made-up outcomes; and the README's pictures."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gesso_simulator.demo.pictures import BIN_SECONDS, Run, contact_sheet, plot, timeline
from gesso_simulator.demo.play import Ending, Outcome
from gesso_simulator.demo.report import MixSample
from gesso_simulator.workloads.arrivals import RateShape
from gesso_simulator.workloads.sessions import PromptRequest
from gesso_worker.models.tiny.scenes import sample_scene

ROOT = Path(__file__).parents[3]
SCENE = sample_scene(np.random.default_rng(0))
OFFERED = RateShape(((0.0, 1.0), (20.0, 3.0)))


def outcome(at_s: float, ending: Ending, k: int = 0, quality: float = 1.0) -> Outcome:
    request = PromptRequest(0, at_s, "a large red ring above a small blue star", 1, SCENE)
    return Outcome(request, ending, 1.0, skipped_steps=k, predicted_quality=quality)


#: In bins of 5 s: two in time; one late; one refused; two in time at two K.
OURS = Run(
    "QualityAware",
    [
        outcome(1.0, Ending.IN_SLO),
        outcome(4.0, Ending.IN_SLO, 10, 0.9),
        outcome(6.0, Ending.LATE, 25, 0.8),
        outcome(11.0, Ending.SHED),
        outcome(16.0, Ending.IN_SLO, 10, 0.9),
        outcome(17.0, Ending.IN_SLO, 25, 0.7),
    ],
    [
        MixSample(at_s, mix, "LoadRose", "", 1, 2)
        for at_s, mix in ((0.0, ""), (1.0, "0:2"), (2.0, "0:2"), (12.0, "0:1,25:1"))
    ],
)
THEIRS = Run("ClipperHA", [outcome(2.0, Ending.IN_SLO), outcome(18.0, Ending.DROPPED)], [])


@pytest.fixture
def figure() -> Figure:
    return timeline([OURS, THEIRS], OFFERED, capacity=1.5, slo_seconds=4.0)


def series(axis: Axes, label: str) -> list[float]:
    (line,) = [line for line in axis.get_lines() if line.get_label() == label]
    return np.asarray(line.get_ydata(), dtype=float).tolist()


def test_the_timeline_has_four_axes_over_the_same_seconds(figure: Figure) -> None:
    assert [a.get_ylabel() for a in figure.axes] == [
        "images/s",
        "predicted relative\nquality, %",
        "SLO violations\nper minute (4 s)",
        "QualityAware:\nserved by K, %",
    ]
    assert figure.axes[-1].get_xlabel() == "seconds"
    assert {a.get_xlim() for a in figure.axes} == {(0.0, 20.0)}


def test_the_load_shows_what_was_offered_and_what_came_in_time(figure: Figure) -> None:
    load = figure.axes[0]
    assert series(load, "offered") == pytest.approx([1.25, 1.75, 2.25, 2.75])
    assert series(load, "QualityAware: in time") == pytest.approx([0.4, 0, 0, 0.4])
    assert series(load, "ClipperHA: in time") == pytest.approx([0.2, 0, 0, 0])
    assert [t.get_text() for t in load.texts] == ["capacity at K = 0"]
    legend = load.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 3
    per_bin = 60 / BIN_SECONDS
    violations = figure.axes[2]
    assert series(violations, "QualityAware") == pytest.approx([0, per_bin, per_bin, 0])
    assert series(violations, "ClipperHA") == pytest.approx([0, 0, 0, per_bin])


def test_quality_is_of_what_was_served_and_has_gaps(figure: Figure) -> None:
    ours, theirs = (
        np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[1].get_lines()
    )
    assert ours == pytest.approx([95, 80, np.nan, 80], nan_ok=True)
    assert theirs == pytest.approx([100, np.nan, np.nan, np.nan], nan_ok=True)


def test_served_levels_are_stacked_and_each_change_of_the_mix_is_marked(figure: Figure) -> None:
    axis = figure.axes[3]
    shares = [[bar.get_height() for bar in bars] for bars in axis.containers]
    assert [c.get_label() for c in axis.containers] == ["K=0", "K=10", "K=25"]
    assert np.sum(shares, axis=0).tolist() == pytest.approx([100, 100, 0, 100])
    assert shares[0] == pytest.approx([50, 0, 0, 0])
    assert [t.get_text() for t in axis.texts] == ["0:2", "0:1,25:1"]


def test_the_plot_is_a_readable_picture(tmp_path: Path) -> None:
    path = tmp_path / "timeline.png"
    plot(path, [OURS, THEIRS], OFFERED, 1.5, 4.0)
    with Image.open(path) as picture:
        picture.load()
        assert picture.size == (990, 1100)


def test_a_run_that_served_nothing_is_drawn_too(tmp_path: Path) -> None:
    path = tmp_path / "timeline.png"
    plot(path, [Run("QualityAware", [outcome(1.0, Ending.SHED)], [])], OFFERED, 1.5, 4.0)
    assert path.stat().st_size > 5_000


def colour(name: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), name).save(data, "PNG")
    return data.getvalue()


def test_the_contact_sheet_sets_each_image_beside_its_reference(tmp_path: Path) -> None:
    path = tmp_path / "images.png"
    made = replace(outcome(1.0, Ending.IN_SLO, 10), image=colour("red"))
    rows = {25: [(made, colour("blue"))], 0: [(made, colour("lime")), (made, colour("lime"))]}
    contact_sheet(path, rows, scale=1)
    with Image.open(path) as sheet:
        picture = sheet.convert("RGB")
    # Rows by rising K, columns as many as the longest row has.
    cell_w, cell_h = 2 * 64 + 14, 64 + 44
    assert picture.size == (70 + 2 * cell_w, 8 + 2 * cell_h)
    for row, reference in enumerate(((0, 255, 0), (0, 0, 255))):
        middle = 8 + row * cell_h + 32
        assert picture.getpixel((70 + 32, middle)) == (255, 0, 0)
        assert picture.getpixel((70 + 64 + 2 + 32, middle)) == reference
        # Its K stands on the left, its prompt below.
        for box in ((8, middle - 15, 66, middle + 6), (70, middle + 34, 200, middle + 60)):
            assert picture.crop(box).convert("L").getextrema()[0] < 128
    assert picture.getpixel((70 + cell_w + 32, 8 + cell_h + 32)) == (255, 255, 255)


def test_there_is_no_sheet_without_an_image(tmp_path: Path) -> None:
    path = tmp_path / "images.png"
    contact_sheet(path, {0: []})
    assert not path.exists()


def readme_pictures() -> list[str]:
    return sorted(set(re.findall(r"\(([\w/.-]+\.png)\)", (ROOT / "README.md").read_text())))


def test_the_readme_shows_pictures() -> None:
    assert "docs/images/timeline.png" in readme_pictures()


@pytest.mark.parametrize("name", readme_pictures())
def test_the_readmes_pictures_are_there_and_readable(name: str) -> None:
    with Image.open(ROOT / name) as picture:
        picture.load()
        assert min(picture.size) >= 300
        low, high = picture.convert("L").getextrema()
        assert high - low > 100
