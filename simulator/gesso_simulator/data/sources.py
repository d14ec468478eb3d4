"""The recorded Twitter load and prompt log, or the project's own where the recordings are not at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gesso.csv_input import open_csv
from gesso_simulator.data import synthetic
from gesso_simulator.inputs.prompts import MOST_ROW, PromptLog

ENVIRONMENT = "GESSO_SHARED_DATA"
TWITTER = Path("twitter", "twitter_1min.csv.gz")
PROMPTS = Path("prompts_argus", "queries.csv.gz")
#: A minute seen for less than this tells too little.
_LEAST_OBSERVED_S = 30.0


@dataclass(frozen=True)
class Sources:
    """Load per minute from a midnight on (only its shape counts; NaN: unobserved); a log with similarities."""

    origin: Literal["recorded", "synthetic"]
    minutes: NDArray[np.float64]
    log: PromptLog


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where recordings lie, if they do: GESSO_SHARED_DATA, else `shared/data` beside the repository."""
    named = environment.get(ENVIRONMENT)
    return Path(named) if named else Path(__file__).parents[4] / "shared" / "data"


def load_sources(folder: Path | None = None) -> Sources:
    """The recordings in a folder (None: `data_folder()`), or the substitutes where either file is absent.

    Raises InputError on a recording that is malformed.
    """
    place = data_folder() if folder is None else folder
    if (place / TWITTER).is_file() and (place / PROMPTS).is_file():
        return _recorded(place)
    return substitutes()


@lru_cache(maxsize=1)
def substitutes() -> Sources:
    """The project's own load and log."""
    return Sources("synthetic", synthetic.minutes(), synthetic.log())


@lru_cache(maxsize=2)
def _recorded(folder: Path) -> Sources:
    return Sources("recorded", _minutes(folder / TWITTER), _log(folder / PROMPTS))


def _minutes(path: Path) -> NDArray[np.float64]:
    table = open_csv(path, ("minute", "count", "observed_s", "mean_per_s", "max_per_s"))
    values: list[float] = []
    for row in table.rows:
        row.whole("minute", len(values), len(values), f"{len(values)}: minutes follow each other")
        seen = row.number("observed_s", 0, 60, "seconds, 0 to 60")
        values.append(
            row.number("mean_per_s", 0, 1e9, "0 or more") if seen >= _LEAST_OBSERVED_S else np.nan
        )
    return np.array(values)


def _log(path: Path) -> PromptLog:
    columns = ("row", "session", "query", "cache_similarity", "cached_prompt")
    rows: list[int] = []
    prompts: list[str] = []
    similarity: list[float] = []
    for row in open_csv(path, columns).rows:
        rows.append(row.whole("row", 0, MOST_ROW, "a whole number"))
        prompts.append(row.cells["query"])
        similarity.append(row.number("cache_similarity", -1, 1, "a number, -1 to 1"))
    return PromptLog(np.array(rows, dtype=np.int64), tuple(prompts), np.array(similarity))
