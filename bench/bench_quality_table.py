"""Measures quality over skipped steps for prompts in sessions, each against its nearest earlier prompt.

`bench/data/README.md` says what the columns are. Hours of CPU for the full size: finished chunks lie in
`bench/out/quality_table/`, and a run that is started again goes on from there, also with more seeds.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import csv
import gzip
import hashlib
import io
import itertools
import json
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from gesso_simulator.workloads.sessions import SessionMix, SessionPrompt, session_prompts
from gesso_worker.models.tiny import folders
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate.pairs import difference, embed
from gesso_worker.models.tiny.evaluate.quality import LADDER, LEAST_DENOMINATOR
from gesso_worker.models.tiny.sampling import GUIDANCE, STEPS, Parts

HERE: Final = Path(__file__).parent
OUT: Final = HERE / "data" / "tiny_quality.csv.gz"
WORK: Final = HERE / "out" / "quality_table"
#: Prompts that only fill the cache.
WARM_UP: Final = 200
BATCH: Final = 16
#: Chunks between two barriers: full generations first, then what resumes from them.
ROUND: Final = 8
STREAM_SEED: Final = 2026
#: Shares of sessions in tenths.
SPLITS: Final = (("train", 6), ("validation", 8), ("heldout", 10))
DEPTHS: Final = LADDER[1:]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """All prompts in order, and for each but the first the nearest earlier one."""

    prompts: tuple[SessionPrompt, ...]
    neighbours: tuple[int, ...]
    similarities: tuple[float, ...]

    @classmethod
    def make(cls, count: int) -> Workload:
        """The first `count` prompts of the stream; of equally near neighbours the earliest."""
        stream = session_prompts(SessionMix(), np.random.default_rng(STREAM_SEED))
        told = tuple(itertools.islice(stream, count))
        vectors = embed([item.prompt for item in told])
        neighbours, similarities = [-1], [0.0]
        for i in range(1, count):
            similar = vectors[:i] @ vectors[i]
            # Word for word the same is exactly 1, whatever the product's rounding says.
            same = next((j for j in range(i) if told[j].prompt == told[i].prompt), None)
            j = int(similar.argmax()) if same is None else same
            neighbours.append(j)
            similarities.append(1.0 if same is not None else min(1.0, float(similar[j])))
        return cls(told, tuple(neighbours), tuple(similarities))


def split(session: int) -> str:
    """`train` (60 % of sessions), `validation` (20 %) or `heldout` (20 %), by a hash of the session."""
    tenth = hashlib.sha256(f"session-{session}".encode()).digest()[0] * 10 // 256
    return next(name for name, end in SPLITS if tenth < end)


def noise_seed(row: int, seed: int) -> int:
    """Of row's K = 0 run, for seed 0, 1, ...: no two runs share their noise."""
    return seed * 1_000_003 + row


# ------------------------------------------------------------------------------------------------
# In the measuring processes

_parts: Parts | None = None
_checker: AttributeChecker | None = None
_workload: Workload | None = None
_work = WORK


def start_process(workload: Workload, work: Path, compiled: bool) -> None:
    """Load the models once in each process."""
    global _parts, _checker, _workload, _work
    torch.set_num_threads(1)
    _parts, _checker, _workload, _work = Parts.load(), AttributeChecker.load(), workload, work
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True
        unet: Any = _parts.unet
        unet.forward = torch.compile(unet.forward, dynamic=False)


def rows_of(chunk: int, count: int) -> list[int]:
    return list(range(chunk * BATCH, min(count, (chunk + 1) * BATCH)))


def full_path(work: Path, seed: int, chunk: int) -> Path:
    return work / f"seed{seed}" / f"full{chunk:04d}.npz"


def resumed_path(work: Path, seed: int, chunk: int) -> Path:
    return work / f"seed{seed}" / f"resuming{chunk:04d}.npz"


def resuming(workload: Workload) -> list[list[int]]:
    """The rows to generate from their neighbours' latents, in chunks.

    Word for word the same prompt is not among them: from its neighbour's latents it gives its
    neighbour's image, at every K.
    """
    rows = [i for i in range(WARM_UP, len(workload.prompts)) if workload.similarities[i] < 1.0]
    return [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]


def _save(path: Path, **arrays: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def _padded(rows: list[int]) -> list[int]:
    """Batches of one size only: a compiled model knows no other."""
    return rows + rows[-1:] * (BATCH - len(rows))


@torch.no_grad()
def measure_full(task: tuple[int, int]) -> None:
    """Generate a chunk at K = 0; keep its scores and the latents before each level."""
    seed, chunk = task
    assert _parts is not None
    assert _checker is not None
    assert _workload is not None
    mine = rows_of(chunk, len(_workload.prompts))
    rows = _padded(mine)
    told = [_workload.prompts[row] for row in rows]
    noise = _parts.noise([noise_seed(row, seed) for row in rows])
    run = _parts.denoise(_parts.encode([t.prompt for t in told]), noise, keep=DEPTHS)
    soft = _checker.score(_parts.decode(run.latents), [t.scene for t in told]).soft
    kept = torch.stack([run.kept[k] for k in DEPTHS], dim=1).numpy()
    _save(full_path(_work, seed, chunk), soft=soft[: len(mine)], kept=kept[: len(mine)])


@torch.no_grad()
def measure_resumed(task: tuple[int, int]) -> None:
    """Generate a chunk at each K > 0 from its neighbours' latents; keep the scores (n, 5)."""
    seed, chunk = task
    assert _parts is not None
    assert _checker is not None
    assert _workload is not None
    mine = resuming(_workload)[chunk]
    rows = _padded(mine)
    told = [_workload.prompts[row] for row in rows]
    wanted = [_workload.neighbours[row] for row in rows]
    files = {j // BATCH for j in wanted}
    kept = {c: np.load(full_path(_work, seed, c))["kept"] for c in files}
    starts = torch.from_numpy(np.stack([kept[j // BATCH][j % BATCH] for j in wanted]))
    prompts = _parts.encode([t.prompt for t in told])
    soft = []
    for i, k in enumerate(DEPTHS):
        images = _parts.decode(_parts.denoise(prompts, starts[:, i].contiguous(), skip=k).latents)
        soft.append(_checker.score(images, [t.scene for t in told]).soft)
    _save(resumed_path(_work, seed, chunk), soft=np.stack(soft, 1)[: len(mine)])


# ------------------------------------------------------------------------------------------------
# In the one that asks


def measure(
    workload: Workload, work: Path, seeds: Sequence[int], processes: int, compiled: bool
) -> None:
    """Everything that is not there yet, seed after seed."""
    chunks = -(-len(workload.prompts) // BATCH)
    ends = [rows[-1] for rows in resuming(workload)]
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(processes, start_process, (workload, work, compiled)) as pool,
        tqdm(total=len(seeds) * (chunks + len(ends)), desc="chunks", smoothing=0.02) as bar,
    ):
        for seed, begin in itertools.product(seeds, range(0, chunks, ROUND)):
            end = min(chunks, begin + ROUND)
            able = [c for c, row in enumerate(ends) if begin * BATCH <= row < end * BATCH]
            for job, path, todo in (
                (measure_full, full_path, list(range(begin, end))),
                (measure_resumed, resumed_path, able),
            ):
                missing = [(seed, c) for c in todo if not path(work, seed, c).exists()]
                bar.update(len(todo) - len(missing))
                for _ in pool.imap_unordered(job, missing):
                    bar.update()


def scores(workload: Workload, work: Path, seed: int) -> dict[int, Array]:
    """Soft scores over the ladder (6,) by row, of the rows that are finished."""
    count = len(workload.prompts)
    full: dict[int, float] = {}
    for chunk in range(-(-count // BATCH)):
        if (path := full_path(work, seed, chunk)).exists():
            full.update(zip(rows_of(chunk, count), np.load(path)["soft"].tolist(), strict=True))
    found: dict[int, Array] = {}
    for chunk, rows in enumerate(resuming(workload)):
        if (path := resumed_path(work, seed, chunk)).exists():
            for row, soft in zip(rows, np.load(path)["soft"], strict=True):
                found[row] = np.concatenate([[full[row]], soft])
    for row in range(WARM_UP, count):
        near = workload.neighbours[row]
        if workload.similarities[row] == 1.0 and row in full:
            found[row] = np.array([full[row], *[full[near]] * len(DEPTHS)])
    return found


def relative(soft: Array) -> Array:
    """Soft scores (..., 6) relative to K = 0, unclipped; a prompt that fails at K = 0 does not blow up."""
    ratio = soft / np.maximum(soft[..., :1], LEAST_DENOMINATOR)
    ratio[..., 0] = 1.0
    return np.asarray(ratio)


def tabled(workload: Workload, path: Path) -> list[dict[int, Array]]:
    """Soft scores over the ladder (6,) by row, for each seed of a table. SystemExit: it is of other prompts."""
    by_seed: list[dict[int, Array]] = []
    with gzip.open(path, "rt", newline="") as file:
        for told in csv.DictReader(file):
            row = int(told["prompt_row"])
            if row >= len(workload.prompts) or told["prompt"] != workload.prompts[row].prompt:
                raise SystemExit(f"{path}: row {row} is not of this stream of prompts")
            for seed in range(sum(name.endswith("_k0") for name in told)):
                if seed == len(by_seed):
                    by_seed.append({})
                soft = [float(told[f"s{seed}_k{k}"]) for k in LADDER]
                by_seed[seed][row] = np.array(soft)
    return by_seed


def table(workload: Workload, by_seed: Sequence[dict[int, Array]]) -> Iterable[dict[str, Any]]:
    """The rows after the warm-up that are finished for every seed."""
    for row, told in enumerate(workload.prompts):
        if row < WARM_UP or any(row not in found for found in by_seed):
            continue
        soft = np.stack([found[row] for found in by_seed])
        quality = relative(soft).mean(0).clip(0.0, 1.0)
        j = workload.neighbours[row]
        near = workload.prompts[j]
        yield {
            "prompt_row": row,
            "session": told.session,
            "split": split(told.session),
            "prompt": told.prompt,
            "neighbour_row": j,
            "neighbour_prompt": near.prompt,
            "change": difference(near.scene, told.scene),
            "similarity": f"{workload.similarities[row]:.6f}",
            **{f"q{k}": f"{q:.4f}" for k, q in zip(LADDER, quality, strict=True)},
            **{
                f"s{seed}_k{k}": f"{value:.4f}"
                for seed in range(len(by_seed))
                for k, value in zip(LADDER, soft[seed], strict=True)
            },
        }


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """As gzipped CSV, the same bytes for the same rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def claim(work: Path, count: int) -> None:
    """Refuse a work folder of another measurement."""
    mine = {
        "prompts": count,
        "stream_seed": STREAM_SEED,
        "batch": BATCH,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "model_fingerprint": folders.fingerprint(),
    }
    path = work / "run.json"
    if path.exists() and (theirs := json.loads(path.read_text())) != mine:
        raise SystemExit(f"{work}: holds another measurement, {theirs}; this one is {mine}")
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=3200, help="rows of the table")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--no-compile", action="store_true", help="a quarter slower, no C++ needed")
    parser.add_argument(
        "--assemble", action="store_true", help="measure nothing: write what is finished"
    )
    parser.add_argument(
        "--extend", action="store_true", help="take the seeds that OUT holds, measure the others"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    workload = Workload.make(WARM_UP + args.prompts)
    claim(args.work, len(workload.prompts))
    by_seed = tabled(workload, args.out)[: args.seeds] if args.extend else []
    seeds = range(len(by_seed), args.seeds)
    if not args.assemble:
        measure(workload, args.work, seeds, args.processes, not args.no_compile)
    rows = list(table(workload, [*by_seed, *(scores(workload, args.work, seed) for seed in seeds)]))
    if not rows:
        raise SystemExit(f"{args.work}: no chunk is finished for all of {args.seeds} seeds")
    write(rows, args.out)
    print(f"{args.out}: {len(rows)} prompts, {args.seeds} seeds")


if __name__ == "__main__":
    main()
