"""Trained cells follow the prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.codebook import read_codebook
from gesso_router.codebook_training import main, spherical_kmeans, train_codebook


def grouped(groups: int, each: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((groups, size))
    rows = np.repeat(middles, each, axis=0) + 0.1 * rng.standard_normal((groups * each, size))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(groups), each)


def test_groups_of_prompts_are_found() -> None:
    rows, group = grouped(6, 40)
    means, of = spherical_kmeans(rows, 12, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(means, axis=1), 1, atol=1e-5)
    assert all(len(set(group[of == c])) <= 1 for c in range(12))
    assert np.array_equal(of, (rows @ means.T).argmax(axis=1))


def test_cells_weigh_what_they_hold() -> None:
    rows, _ = grouped(8, 30)
    book = train_codebook(rows, 32, 8)
    cells = book.cell_of[(rows @ book.centroids.T).argmax(axis=1)]
    share = np.bincount(cells, minlength=len(book.weights)) / len(rows)
    assert np.allclose(book.weights, share, atol=0.03)
    assert train_codebook(rows, 32, 8).version == book.version


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 12))
def test_few_prompts_make_a_small_codebook(count: int, centroids: int, cells: int) -> None:
    rows, _ = grouped(count, 1)
    book = train_codebook(rows, centroids, cells)
    assert 1 <= len(book.centroids) <= max(1, count // 2)
    assert set(book.cell_of) == set(range(len(book.weights)))


def test_without_a_prompt_there_is_none() -> None:
    with pytest.raises(ValueError, match="n at least 1"):
        train_codebook(np.zeros((0, 4), np.float32))


def test_the_command_writes_a_codebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a red star\n\na blue ring\na large green square\n" * 2)
    flags = ["--embedding", "builtin://tiny-clip", "--prompts", str(tmp_path / "prompts.txt")]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 0
    book = read_codebook(tmp_path / "out")
    assert book.version in capsys.readouterr().out
    assert book.dimensions == 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--embedding", "builtin://tiny-clip", "--prompts", "none.txt"], "none.txt"),
        (["--embedding", "no such", "--prompts", "{prompts}"], "spec.router.embedding: 'no such'"),
    ],
)
def test_what_cannot_be_read_is_told(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.txt").write_text("a red star\n")
    flags = [f.format(prompts=tmp_path / "p.txt") for f in flags]
    with pytest.raises(SystemExit):
        main([*flags, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err
