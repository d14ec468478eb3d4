"""The quality table is put together from chunks: every row by its own numbers, repeats by their neighbours'."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import bench_quality_table as bench
import numpy as np
import pytest

from gesso_simulator.workloads.sessions import SessionMix, session_prompts

COUNT = bench.WARM_UP + 40


def workload() -> bench.Workload:
    """Each prompt's neighbour is the one before; every fourth repeats it."""
    stream = session_prompts(SessionMix(), np.random.default_rng(1))
    told = tuple(itertools.islice(stream, COUNT))
    similar = tuple(1.0 if i % 4 == 0 else 0.8 for i in range(COUNT))
    return bench.Workload(told, tuple(i - 1 for i in range(COUNT)), similar)


def full_score(row: int) -> float:
    return 0.9 + row / 10_000


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for chunk in range(-(-COUNT // bench.BATCH)):
        rows = bench.rows_of(chunk, COUNT)
        path = bench.full_path(tmp_path, 0, chunk)
        path.parent.mkdir(exist_ok=True)
        np.savez(path, soft=np.array([full_score(r) for r in rows]))
    for chunk, rows in enumerate(bench.resuming(workload())):
        soft = np.array([[full_score(r) - k / 100 for k in bench.DEPTHS] for r in rows])
        np.savez(bench.resumed_path(tmp_path, 0, chunk), soft=soft)
    return tmp_path


def table(work: Path, seeds: int) -> list[dict[str, Any]]:
    by_seed = [bench.scores(workload(), work, seed) for seed in range(seeds)]
    return list(bench.table(workload(), by_seed))


def test_rows_hold_their_own_scores_and_repeats_their_neighbours(work: Path) -> None:
    rows = table(work, 1)
    assert [row["prompt_row"] for row in rows] == list(range(bench.WARM_UP, COUNT))
    for row in rows:
        mine, near = full_score(row["prompt_row"]), full_score(row["neighbour_row"])
        repeat = row["prompt_row"] % 4 == 0
        assert float(row["s0_k0"]) == pytest.approx(mine, abs=1e-4)
        assert float(row["s0_k25"]) == pytest.approx(near if repeat else mine - 0.25, abs=1e-4)
        assert row["q0"] == "1.0000"
        assert float(row["q10"]) == pytest.approx(
            min(1.0, (near if repeat else mine - 0.1) / mine), abs=1e-4
        )


def test_a_row_that_one_seed_lacks_is_left_out(work: Path) -> None:
    last = len(bench.resuming(workload())) - 1
    missing = bench.resuming(workload())[last]
    bench.resumed_path(work, 0, last).unlink()
    rows = [row["prompt_row"] for row in table(work, 1)]
    assert rows == [r for r in range(bench.WARM_UP, COUNT) if r not in missing]
    assert not table(work, 2)


def test_the_same_rows_make_the_same_bytes(work: Path, tmp_path: Path) -> None:
    rows = table(work, 1)
    for name in ("a", "b"):
        bench.write(rows, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_gives_back_the_scores_it_was_made_of(work: Path, tmp_path: Path) -> None:
    bench.write(table(work, 1), tmp_path / "one.csv.gz")
    (seed,) = bench.tabled(workload(), tmp_path / "one.csv.gz")
    measured = bench.scores(workload(), work, 0)
    assert sorted(seed) == sorted(measured)
    for row, soft in seed.items():
        assert soft == pytest.approx(measured[row], abs=1e-4)


def test_a_table_of_other_prompts_is_not_extended(work: Path, tmp_path: Path) -> None:
    rows = table(work, 1)
    rows[3]["prompt"] = "something else"
    bench.write(rows, tmp_path / "other.csv.gz")
    with pytest.raises(SystemExit, match=f"row {rows[3]['prompt_row']} is not of this stream"):
        bench.tabled(workload(), tmp_path / "other.csv.gz")


def test_a_failing_full_generation_does_not_blow_the_ratio_up() -> None:
    got = bench.relative(np.array([0.1, 0.4, 0.2]))
    assert got == pytest.approx([1.0, 0.8, 0.4])


def test_a_session_has_one_split_in_fixed_shares() -> None:
    splits = [bench.split(session) for session in range(5000)]
    assert splits == [bench.split(session) for session in range(5000)]
    for name, share in (("train", 0.6), ("validation", 0.2), ("heldout", 0.2)):
        assert splits.count(name) / 5000 == pytest.approx(share, abs=0.02)


def test_no_two_runs_share_their_noise() -> None:
    found = {bench.noise_seed(row, seed) for row in range(4000) for seed in range(4)}
    assert len(found) == 16_000


def test_another_measurement_is_refused(tmp_path: Path) -> None:
    bench.claim(tmp_path, 100)
    bench.claim(tmp_path, 100)
    with pytest.raises(SystemExit, match="another measurement"):
        bench.claim(tmp_path, 101)
