"""A quality table: the true relative quality of each prompt at each K."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gesso.csv_input import InputError, open_csv
from gesso_simulator.inputs.prompts import MOST_ROW, PromptLog

MOST_K = 999
#: Columns of the table that this project measures, which a simulation reads past, apart from `split` and
#: `prompt`.
DOCUMENTED = ("session", "prompt", "neighbour_row", "neighbour_prompt", "change", "split")
SPLITS = ("train", "validation", "heldout")
#: The table that this project measures on its tiny SD-XL.
MEASURED = Path(__file__).parents[3] / "bench" / "data" / "tiny_quality.csv.gz"
#: Stands for it where a file is named.
MEASURED_NAME = "measured"
_QUALITY = re.compile(r"q(0|[1-9]\d{0,2})")
_SINGLE_SEED = re.compile(r"s\d+_k\d+")


@dataclass(frozen=True)
class QualityTable:
    """Quality (n, k) of n prompts at the k levels of `ladder` over that of the same prompt at K = 0; 0 to 1.

    `rows` (n,) are the prompts' rows in their log, `similarity` (n,) of the nearest cached prompt when they
    were measured. `learning` (n,) marks rows that a predictor may learn from, `heldout` (n,) those to try it
    on, `prompts` are their texts; None: not told.
    """

    ladder: tuple[int, ...]
    rows: NDArray[np.int64]
    similarity: NDArray[np.float64]
    quality: NDArray[np.float64]
    learning: NDArray[np.bool_] | None = None
    heldout: NDArray[np.bool_] | None = None
    prompts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.quality.shape != (len(self.rows), len(self.ladder)) or not len(self.rows):
            raise ValueError(
                f"quality: shape {self.quality.shape} is not allowed: (rows, levels), one at least"
            )
        if not self.ladder or self.ladder[0] != 0 or list(self.ladder) != sorted(set(self.ladder)):
            raise ValueError(f"ladder: {self.ladder} is not allowed: ascending, from 0")
        if not np.all((self.quality >= 0) & (self.quality <= 1)):
            raise ValueError("quality: a value outside 0 to 1 is not allowed")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def log(self) -> PromptLog:
        """The table's own prompts in its order, as a log."""
        texts = self.prompts or tuple(f"prompt {row}" for row in self.rows.tolist())
        return PromptLog(self.rows, texts, self.similarity)

    def at_levels(self, ladder: tuple[int, ...]) -> QualityTable:
        """The columns of some levels. Raises ValueError, naming the levels, where it lacks one."""
        lacking = [k for k in ladder if k not in self.ladder]
        if lacking:
            raise ValueError(
                f"ladder: K = {','.join(map(str, lacking))} is not allowed: the quality table has "
                f"{','.join(map(str, self.ladder))}"
            )
        columns = [self.ladder.index(k) for k in ladder]
        return QualityTable(
            ladder,
            self.rows,
            self.similarity,
            self.quality[:, columns],
            self.learning,
            self.heldout,
            self.prompts,
        )


def measured_table(path: Path = MEASURED) -> QualityTable:
    """The project's own measured table. Raises InputError, with what to do, where it is absent."""
    if not path.is_file():
        raise InputError(
            path, "no such file: the measured quality table lies in the repository's bench/data"
        )
    return read_quality_table(path)


def read_quality_table(path: Path | str, steps: int = MOST_K + 1) -> QualityTable:
    """Reads `prompt_row,similarity,q0,q5,...`: a column q<K> for each K, q0 among them, each below `steps`.

    Columns that the project's own measured table has besides are allowed: `session`, `prompt`,
    `neighbour_row`, `neighbour_prompt`, `change`, `split` (`train` marks the rows to learn from) and single
    seeds' values `s<seed>_k<K>`; any other is refused. Raises InputError on those, on holes, values outside 0
    to 1, similarities outside -1 to 1, rows given twice, no rows.
    """
    table = open_csv(
        path,
        ("prompt_row", "similarity", "q0"),
        DOCUMENTED,
        accepts=lambda name: bool(_QUALITY.fullmatch(name) or _SINGLE_SEED.fullmatch(name)),
        allowed="further levels q<K>",
    )
    ladder = tuple(sorted(int(name[1:]) for name in table.header if _QUALITY.fullmatch(name)))
    for k in ladder:
        if k >= steps:
            raise InputError(path, f"column: q{k} is not allowed: K below {steps}, the steps", 1)
    if len(ladder) < 2:
        raise InputError(path, "column: q0 alone is not allowed: one more level at least", 1)
    names = [f"q{k}" for k in ladder]
    rows: dict[int, int] = {}
    similarity: list[float] = []
    quality: list[list[float]] = []
    prompts: list[str] = []
    splits: list[str] = []
    for row in table.rows:
        number = row.whole("prompt_row", 0, MOST_ROW, "a whole number, 0 or more")
        if number in rows:
            raise row.refuse("prompt_row", f"each once; line {rows[number]} has it too")
        rows[number] = row.line
        similarity.append(row.number("similarity", -1.0, 1.0, "a number, -1 to 1"))
        quality.append(
            [
                row.number(name, 0.0, 1.0, "relative quality, 0 to 1, in every cell")
                for name in names
            ]
        )
        prompts.append(row.cells.get("prompt", ""))
        splits.append(row.cells.get("split", "train").strip())
        if splits[-1] not in SPLITS:
            raise row.refuse("split", ", ".join(SPLITS))
    if not rows:
        raise InputError(path, "rows: 0 is not allowed: one prompt at least")
    return QualityTable(
        ladder,
        np.array(list(rows), dtype=np.int64),
        np.array(similarity),
        np.array(quality),
        np.array([s == "train" for s in splits]) if "split" in table.header else None,
        np.array([s == "heldout" for s in splits]) if "split" in table.header else None,
        tuple(prompts) if "prompt" in table.header else None,
    )
