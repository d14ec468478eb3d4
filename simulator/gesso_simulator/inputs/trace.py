"""A trace of arrivals: how many requests came in each step of time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gesso.csv_input import InputError, open_csv

#: More requests than this are no simulation that ends today.
MOST_REQUESTS = 20_000_000
_LONGEST_S = 10 * 366 * 86_400.0


@dataclass(frozen=True)
class Trace:
    """Steps of a trace, arrays (m,): when each begins and how long it lasts, in seconds, and its requests.

    Times count from the first step. Raises ValueError on arrays of unlike lengths, without a step, with a
    negative count, or with steps that do not follow each other.
    """

    step_starts: NDArray[np.float64]
    step_seconds: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.step_starts) == len(self.step_seconds) == len(self.counts) > 0:
            raise ValueError("steps: one start, length and count for each, one step at least")
        if not np.all(self.step_seconds > 0) or not np.all(np.isfinite(self.step_starts)):
            raise ValueError("step_seconds: above 0")
        if not np.allclose(self.step_starts[1:], self.step_starts[:-1] + self.step_seconds[:-1]):
            raise ValueError("step_starts: each step begins where the one before ends")
        if self.counts.min() < 0:
            raise ValueError(f"counts: {self.counts.min()} is not allowed: 0 or more")

    @property
    def duration_s(self) -> float:
        """From the first step's start to the last one's end."""
        return float(self.step_starts[-1] + self.step_seconds[-1] - self.step_starts[0])


def read_trace(path: Path | str) -> Trace:
    """Reads `t_s,count`, one row a step; a step lasts until the next, the last as long as the one before.

    Raises InputError on times that do not ascend, counts that are no whole numbers from 0, fewer than two
    rows, and a trace without a request.
    """
    table = open_csv(path, ("t_s", "count"))
    times: list[float] = []
    counts: list[int] = []
    total = 0
    for row in table.rows:
        at = row.number("t_s", -_LONGEST_S, _LONGEST_S, "seconds, a finite number")
        if times and at <= times[-1]:
            raise row.refuse("t_s", f"ascending: above {times[-1]:g}, the row's before")
        count = row.whole("count", 0, MOST_REQUESTS, f"a whole number, 0 to {MOST_REQUESTS}")
        total += count
        if total > MOST_REQUESTS:
            raise row.refuse("count", f"at most {MOST_REQUESTS} requests in all")
        times.append(at)
        counts.append(count)
    if len(times) < 2:
        raise InputError(
            path,
            f"rows: {len(times)} is not allowed: 2 at least, a step lasts until the next one's t_s",
        )
    if total == 0:
        raise InputError(path, "count: 0 in every row is not allowed: one request at least")
    starts = np.array(times) - times[0]
    lengths = np.diff(starts)
    return Trace(starts, np.append(lengths, lengths[-1]), np.array(counts, dtype=np.int64))
