"""What readers make of good files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gesso.profile_table import Latency, fit_profile, read_profile
from gesso_simulator.inputs.prompts import read_prompts
from gesso_simulator.inputs.quality_table import read_quality_table
from gesso_simulator.inputs.trace import Trace, read_trace


def test_a_step_lasts_until_the_next_and_the_last_as_long_as_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("count,t_s\n3,100\n0,160.5\n7.0,170.5\n")
    trace = read_trace(path)
    assert trace.step_starts.tolist() == [0, 60.5, 70.5]
    assert trace.step_seconds.tolist() == [60.5, 10, 10]
    assert trace.counts.tolist() == [3, 0, 7]
    assert trace.duration_s == 80.5


def test_gzip_byte_order_mark_and_windows_lines_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress("\ufefft_s,count\r\n0,1\r\n1,2\r\n".encode()))
    assert read_trace(path).counts.tolist() == [1, 2]


def test_traces_that_contradict_themselves_cannot_be_made() -> None:
    one, two = np.array([0.0, 60.0]), np.array([60.0, 60.0])
    with pytest.raises(ValueError, match="counts: -1"):
        Trace(one, two, np.array([1, -1]))
    with pytest.raises(ValueError, match="begins where the one before ends"):
        Trace(np.array([0.0, 50.0]), two, np.array([1, 1]))
    with pytest.raises(ValueError, match="one start, length and count"):
        Trace(one, two, np.array([1]))


def test_prompts_keep_order_commas_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text('prompt_row,prompt\n7,"a cat, red"\n3,"two\nlines"\n')
    log = read_prompts(path)
    assert log.rows.tolist() == [7, 3]
    assert log.prompts == ("a cat, red", "two\nlines")
    assert log.similarity is None
    path.write_text("similarity,prompt,prompt_row\n-0.25,cat,0\n")
    similarity = read_prompts(path).similarity
    assert similarity is not None
    assert similarity.tolist() == [-0.25]


def test_the_ladder_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("q40,prompt_row,q0,similarity,q5\n0.5,9,1,0.7,0.9\n")
    table = read_quality_table(path)
    assert table.ladder == (0, 5, 40)
    assert table.quality.tolist() == [[1, 0.9, 0.5]]
    assert table.learning is None
    assert table.at_levels((0, 40)).quality.tolist() == [[1, 0.5]]
    with pytest.raises(ValueError, match="ladder: K = 10,20 is not allowed: the quality table has"):
        table.at_levels((0, 5, 10, 20))


def test_the_measured_tables_columns_are_known(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "prompt_row,session,prompt,neighbour_row,similarity,split,q0,q5,s0_k0,s0_k5,s1_k5\n"
        "200,4,a red circle,,0.7,train,1,0.9,0.8,0.72,0.7\n"
        "201,4,a red square,200,0.9,validation,1,0.95,0.8,,\n"
        "202,5,a blue square,200,0.8,heldout,1,0.93,0.8,0.7,0.7\n"
    )
    table = read_quality_table(path)
    assert table.ladder == (0, 5)
    assert table.prompts == ("a red circle", "a red square", "a blue square")
    assert table.learning is not None
    assert table.heldout is not None
    assert table.learning.tolist() == [True, False, False]
    assert table.heldout.tolist() == [False, False, True]


def test_fit_recovers_fixed_cost_steps_and_jitter(tmp_path: Path) -> None:
    def latency(k: int, tick: float) -> float:
        return 0.28 + (50 - k) * tick

    path = tmp_path / "profile.csv"
    lines = [
        f"{k},{batch},{latency(k, tick)!r},{latency(k, tick) * 1.1!r}"
        for k in (0, 10, 25)
        for batch, tick in ((1, 0.052), (4, 0.1))
    ]
    path.write_text("skipped_steps,batch,latency_s,p95_s\n" + "\n".join(lines))
    fit = read_profile(path, 50)
    assert fit.profile.fixed_seconds == pytest.approx(0.28)
    assert fit.profile.step_seconds == pytest.approx((0.052, 0.068, 0.084, 0.1))
    assert fit.profile.p95_ratio == pytest.approx(1.1)
    assert fit.most_residual < 1e-9


def test_a_negative_fixed_cost_becomes_none_and_the_residual_tells() -> None:
    measured = [Latency(0, 1, 5.0), Latency(25, 1, 2.0)]
    fit = fit_profile(measured, 50, "gpu")
    assert fit.profile.fixed_seconds == 0
    # Least squares through the origin: sum(n t) / sum(n^2).
    assert fit.profile.step_seconds == pytest.approx(((50 * 5 + 25 * 2) / (50**2 + 25**2),))
    assert fit.profile.p95_ratio == 1
    assert fit.most_residual == pytest.approx(0.2)
    assert fit.rms_residual == pytest.approx(((0.04**2 + 0.2**2) / 2) ** 0.5)
