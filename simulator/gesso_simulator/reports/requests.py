"""One line a request and policy, as gzipped CSV."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gesso_simulator.reports.result import OUTCOMES, SERVED, PolicyResult
from gesso_simulator.scenarios.spec import ScenarioRun

COLUMNS = (
    "policy",
    "request",
    "arrival_s",
    "prompt_row",
    "predicted_k",
    "served_k",
    "worker",
    "start_s",
    "finish_s",
    "outcome",
    "relative_quality",
)


def write_requests(path: Path, run: ScenarioRun, results: Iterable[PolicyResult]) -> None:
    """Writes `COLUMNS`; cells are empty where there is nothing to tell. Equal runs give equal bytes.

    `predicted_k` is the K up to which the prompt's similarity lets it skip, `served_k` the K it ran at, or the
    name of another model's variant. Times are seconds from the run's start.
    """
    names = [variant.name for variant in run.variants]
    rows = run.workload.prompt_rows.tolist()
    # No file name and no time in the header, or two equal runs would differ.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8", newline="") as text,
    ):
        text.write(",".join(COLUMNS) + "\n")
        for result in results:
            text.writelines(_lines(result, names, rows))


def _lines(result: PolicyResult, variants: Sequence[str], rows: Sequence[int]) -> Iterator[str]:
    """One line a request. Names hold no comma, so that nothing needs quoting."""
    columns = (
        result.arrival_s.tolist(),
        result.prompt.tolist(),
        result.predicted_k.tolist(),
        result.variant.tolist(),
        result.worker.tolist(),
        result.start_s.tolist(),
        result.finish_s.tolist(),
        result.outcome.tolist(),
        result.relative_quality.tolist(),
    )
    # Index -1, of what never ran, finds the empty name at the end.
    variants = (*variants, "")
    workers = (*result.workers, "")
    for i, (
        arrival,
        prompt,
        predicted,
        variant,
        worker,
        start,
        finish,
        outcome,
        quality,
    ) in enumerate(zip(*columns, strict=True)):
        told = f"{quality:.6g}" if outcome == SERVED else ""
        yield (
            f"{result.policy},{i},{arrival:.4f},{rows[prompt]},{predicted if predicted >= 0 else ''},"
            f"{variants[variant]},{workers[worker]},{_seconds(start)},{_seconds(finish)},"
            f"{OUTCOMES[outcome]},{told}\n"
        )


def _seconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
