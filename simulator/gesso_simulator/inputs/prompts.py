"""A log of prompts, in the order in which they came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gesso.csv_input import InputError, open_csv

#: What fits 64 bits, and a float without loss.
MOST_ROW = 2**53


@dataclass(frozen=True)
class PromptLog:
    """The p prompts of a log: rows (p,), texts, and the similarity (p,) of the nearest one in the cache.

    `similarity` is the cosine between embeddings, None where the log does not say.
    """

    rows: NDArray[np.int64]
    prompts: tuple[str, ...]
    similarity: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.prompts) > 0:
            raise ValueError("prompts: one row number for each, one prompt at least")
        if self.similarity is not None and len(self.similarity) != len(self.rows):
            raise ValueError("similarity: one value for each prompt")

    def __len__(self) -> int:
        return len(self.rows)


def read_prompts(path: Path | str) -> PromptLog:
    """Reads `prompt_row,prompt[,similarity]`.

    Raises InputError on an empty log or prompt, a row number given twice, and a similarity outside -1 to 1.
    """
    table = open_csv(path, ("prompt_row", "prompt"), ("similarity",))
    given = "similarity" in table.header
    rows: dict[int, int] = {}
    prompts: list[str] = []
    similarity: list[float] = []
    for row in table.rows:
        number = row.whole("prompt_row", 0, MOST_ROW, "a whole number, 0 or more")
        if number in rows:
            raise row.refuse("prompt_row", f"each once; line {rows[number]} has it too")
        rows[number] = row.line
        prompts.append(row.text("prompt", "text"))
        if given:
            similarity.append(row.number("similarity", -1.0, 1.0, "a number, -1 to 1"))
    if not rows:
        raise InputError(path, "rows: 0 is not allowed: one prompt at least")
    return PromptLog(
        np.array(list(rows), dtype=np.int64),
        tuple(prompts),
        np.array(similarity) if given else None,
    )
