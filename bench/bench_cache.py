"""The cache: look-ups and fetches by size, eviction policies, placement, and the tier on disk, in one run.

Ratios are against what one would use instead: exact search, HNSW, one index with a filter, LRU and FIFO, one
index of everything, other layouts of files. CPU time is told beside wall time, since it hardly suffers from
what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from cache_shard import eviction, fetch, lookup, placing, store
from cache_shard.prompts import MissingError, embedded, made_up, read_prompts
from rich.console import Console
from rich.table import Table

from gesso.builtin import TINY_CLIP, builtin_path
from gesso.codebook import FILE_NAME, read_codebook

OUT = Path(__file__).parent / "out"
ROWS = ("lookup", "alternatives", "tenants", "fetch", "eviction", "placement", "store")
#: The first so many of the argus log are held, the rest asked.
HELD = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    data = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder of the prompts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="some of it")
    parser.add_argument(
        "--folder", type=Path, help="on the disk to measure (default: a temporary one)"
    )
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        port, folder, memory = given.serve
        asyncio.run(fetch.serve(int(port), Path(folder), int(memory)))
        return
    faiss.omp_set_num_threads(1)
    console = Console(stderr=True)
    file = OUT / "cache.json"
    skipped: list[str] = []
    real = real_prompts(given.data, skipped)
    base = real.get("argus", made_up(384))
    told = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "faiss": faiss.__version__,
            "numpy": np.__version__,
        },
        "vectors": "near those of real prompts (all-MiniLM-L6-v2)"
        if "argus" in real
        else "made up",
        "skipped": skipped,
    }
    report: dict[str, Any] = told
    for name in given.rows:
        console.print(f"{name} ...")
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found = run(name, base, real, given.sizes, Path(folder), console)
        OUT.mkdir(exist_ok=True)
        before: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        # Rows and sizes that were not asked for now stay as they were.
        report = {**before, **told, name: {**before.get(name, {}), **found}}
        file.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    for word in skipped:
        console.print(f"skipped: {word}")
    console.print(f"written: {file}")


def real_prompts(data: Path, skipped: list[str]) -> dict[str, np.ndarray]:
    """Embeddings by log; what is missing is said."""
    found = {}
    for name in ("argus", "diffusiondb"):
        try:
            found[name] = embedded(read_prompts(data, name), OUT)
        except MissingError as error:
            skipped.append(f"{name}: {error}")
    return found


def run(
    name: str,
    base: np.ndarray,
    real: Mapping[str, np.ndarray],
    sizes: Sequence[int],
    folder: Path,
    console: Console,
) -> Any:
    """One part of the report."""
    if name == "lookup":
        found = {}
        for size in sizes:
            console.print(f"  {size} entries")
            found[str(size)] = lookup.by_size(base, size)
        return found
    if name == "alternatives":
        # 768 is CLIP ViT-L's size, where a look-up costs twice as much.
        return {
            "hnsw": lookup.hnsw(base, min(100_000, max(sizes))),
            "crossover": lookup.crossover(base, (1000, 2000, 4000, 8000, 16_000, 32_000)),
            "dimensions_768": lookup.by_size(made_up(768), min(100_000, max(sizes))),
        }
    if name == "tenants":
        most = min(100_000, max(sizes))
        return {str(number): lookup.tenants(base, most, number) for number in (10, 1000)}
    if name == "fetch":
        return asyncio.run(fetch.figures(folder, 1000))
    if name == "store":
        return {
            "sdxl": store.figures(folder / "sdxl", 400, (1, 4, 128, 128)),
            "tiny": store.figures(folder / "tiny", 4000, (1, 4, 8, 8)),
        }
    if name == "eviction":
        return {log: eviction.figures(rows, (0.02, 0.05, 0.1, 0.2)) for log, rows in real.items()}
    return placement(real)


def placement(real: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """By prompts; the tiny model's by the codebook that ships with it."""
    found: dict[str, Any] = {}
    for log, rows in real.items():
        held = min(HELD, len(rows) * 3 // 4)
        found[log] = placing.figures(rows[:held], rows[held:])
    if len(real) == 2:
        book = placing.train_codebook(real["diffusiondb"])
        rows = real["argus"]
        found["argus_by_the_other_logs_codebook"] = placing.figures(rows[:HELD], rows[HELD:], book)
    rows = tiny_prompts(6000)
    book = read_codebook(builtin_path(TINY_CLIP) / FILE_NAME)
    found["tiny"] = placing.figures(rows[:4500], rows[4500:], book)
    return found


def tiny_prompts(count: int) -> np.ndarray:
    """Embeddings of the demo's prompts, sessions of other users than the codebook was trained on."""
    from gesso_router.text_tower import load_encoder
    from gesso_simulator.workloads.sessions import SessionMix, prompts

    stream = prompts(SessionMix(users=64), np.random.default_rng(41))
    texts = [next(stream)[0] for _ in range(count)]
    encode = load_encoder(TINY_CLIP)
    return np.concatenate([encode(texts[i : i + 64]) for i in range(0, count, 64)])


def show(report: Mapping[str, Any]) -> None:
    """Prints tables of what is there."""
    console = Console()
    table = Table(title=f"look-ups, 384 dimensions, {report['vectors']}")
    for column in (
        "entries",
        "recall@1",
        "p50 ms",
        "p99 ms",
        "CPU p99 ms",
        "exact / ours (p50)",
        "bytes",
    ):
        table.add_column(column, justify="right")
    for r in report.get("lookup", {}).values():
        numbers = (f"{r['recall_at_1']:.3f}", f"{r['p50_ms']:.2f}", f"{r['p99_ms']:.2f}")
        more = (f"{r['cpu_p99_ms']:.2f}", f"{r['flat_over_ours_p50']:.1f}", str(r["index_bytes"]))
        table.add_row(str(r["entries"]), *numbers, *more)
    console.print(table)
    for log, rows in report.get("placement", {}).items():
        for r in rows:
            recall, alone = (
                r[placing.recall_of(r["probes"], copies)] for copies in (r["copies"], 1)
            )
            console.print(
                f"placement, {log}: of {r['shards']} shards {r['copies']} know of an entry and "
                f"{r['probes']} are asked, recall@1 {recall:.3f} (one knows: {alone:.3f}); one that joins "
                f"moves {r['moved_when_one_joins']:.3f} (fair: {r['fair_share']:.3f})"
            )
    for log, rows in report.get("eviction", {}).items():
        for r in rows:
            console.print(
                f"eviction, {log}: {r['policy']:5} at {r['capacity_share']:.0%}: hits {r['hit_ratio']:.3f}, "
                f"{r['mean_skipped_steps']:.2f} steps skipped"
            )
    for part in ("alternatives", "tenants", "fetch", "store"):
        if part in report:
            console.print(part, json.dumps(report[part], indent=1))


if __name__ == "__main__":
    sys.exit(main())
