"""Every policy on the same arrivals: violations and quality beside the bounds, and what must hold.

    python bench/bench_decisions.py [--days 3] [--seeds 3] [--case NAME ...] [--processes 2]

Scenarios: docs/simulator.md. A result is kept in bench/out/decisions/ and taken again by a later
run of the same code. Writes bench/out/decisions.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from decisions.cases import CASES, Case
from decisions.checks import Check, checks
from decisions.gather import Row, gathered, mean
from decisions.work import Task, do, done, fingerprint
from rich.console import Console
from rich.table import Table
from tqdm import tqdm


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--case", action="append", help="say twitter or twitter@3x; all by default")
    parser.add_argument("--policy", action="append", help="only these; all of the case by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--any-code", action="store_true", help="take results of other code too")
    parser.add_argument("--out", type=Path, default=Path("bench/out/decisions.json"))
    args = parser.parse_args()
    code = fingerprint()
    wanted = [c for c in CASES if not args.case or any(_named(c, n) for n in args.case)]
    tasks = [
        Task(case, what, day, seed)
        for seed in range(args.seeds)
        for day in range(args.days)
        for case in wanted
        for what in _whats(case, args.policy)
    ]
    results, missing = [], []
    for task in tasks:
        found = done(task, "" if args.any_code else code)
        if found is None:
            missing.append((task, code))
        else:
            results.append(found)
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        bar = tqdm(pool.imap_unordered(_do, missing), total=len(missing), desc="runs")
        results += list(bar)
    table = gathered(results)
    held = list(checks(table))
    console = Console(width=150)
    for case in wanted:
        if case.key in table:
            console.print(_table(case.key, table[case.key]))
    console.print(_checks(held))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(_document(args, results, table, held), indent=1) + "\n")
    print(f"written: {args.out}")
    return 0


def _named(case: Case, name: str) -> bool:
    return name in (case.key, case.scenario, case.key.split("@")[0])


def _whats(case: Case, only: list[str] | None) -> list[str]:
    whats = [*case.policies, *(["bounds"] if case.bounds else [])]
    return [w for w in whats if not only or w in only]


def _do(job: tuple[Task, str]) -> dict[str, Any]:
    return do(*job)


def _spread(row: Row, name: str, scale: float, digits: int) -> str:
    found = row.get(name)
    if not found:
        return ""
    text = f"{scale * found['mean']:.{digits}f}"
    if row["runs"] > 1:
        text += f" ({scale * found['least']:.{digits}f} to {scale * found['most']:.{digits}f})"
    return text


def _table(case: str, rows: dict[str, Row]) -> Table:
    table = Table(
        title=f"{case}: means (least to most) of {max(r['runs'] for r in rows.values())} runs"
    )
    for column in ("policy", "violations %", "quality %", "mean K", "switches", "worker-hours"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    order = sorted(rows, key=lambda n: (n in ("informed", "clairvoyant"), n != "QualityAware"))
    for name in order:
        row = rows[name]
        table.add_row(
            name,
            _spread(row, "violation_ratio", 100, 3),
            _spread(row, "relative_quality", 100, 2),
            f"{mean(row, 'mean_skipped_steps'):.1f}" if "mean_skipped_steps" in row else "",
            f"{mean(row, 'switches'):.0f}" if "switches" in row else "",
            _spread(row, "worker_hours", 1, 1),
        )
    return table


def _checks(held: list[Check]) -> Table:
    table = Table(title="What must hold for QualityAware")
    for column in ("case", "demand", "measured", "limit", ""):
        table.add_column(column)
    for check in held:
        table.add_row(
            check.case,
            check.says,
            f"{check.measured:.4g}",
            f"{check.limit:g}",
            "holds" if check.holds else "[bold red]does not hold[/]",
        )
    return table


def _document(
    args: argparse.Namespace, results: list[Any], table: dict[str, Any], held: list[Check]
) -> dict[str, Any]:
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "days": args.days,
        "seeds": args.seeds,
        "data": sorted({r["origin"] for r in results}),
        # Fingerprint of the code by case: several where --any-code took older results.
        "code": {key: sorted({r["code"] for r in results if r["case"] == key}) for key in table},
        "cases": table,
        "checks": [c.as_dict() for c in held],
    }


if __name__ == "__main__":
    sys.exit(main())
