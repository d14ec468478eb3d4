"""Part ``quality``: relative quality over skipped steps, by kind of change and by similarity of prompts.

For each pair, A is generated and its latents are kept; B is generated from scratch (K = 0) and from
A's latents at each K. The score is the attribute checker's mean probability of what B states.
"""

from __future__ import annotations

import datetime
import itertools
import json
import multiprocessing
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from gesso_worker.models.tiny import folders
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate import pairs
from gesso_worker.models.tiny.sampling import GUIDANCE, STEPS, Parts

LADDER: Final = (0, 5, 10, 15, 20, 25)
NATURAL: Final = 192
MADE_EACH: Final = 24
BATCH: Final = 16
BINS: Final = 8
#: A prompt that fails at K = 0 already must not blow its ratio up.
LEAST_DENOMINATOR: Final = 0.5
#: Cached images must fit their own prompts at least so well, or the cache was built wrongly.
LEAST_OWN_SCORE: Final = 0.85
REPEAT: Final = 0.9995

Table = np.ndarray[Any, Any]
_parts: Parts | None = None
_checker: AttributeChecker | None = None


def score_batch(task: tuple[int, list[pairs.Pair]]) -> tuple[Table, Table, float]:
    """Soft scores of B at each K (n, 6), of A against its own prompt (n,), and an error.

    The error is the largest difference between A's final latents and those reached again from
    the kept ones.
    """
    global _parts, _checker
    if _parts is None or _checker is None:
        torch.set_num_threads(1)
        _parts, _checker = Parts.load(), AttributeChecker.load()
    first, batch = task
    seeds = range(2 * first, 2 * (first + len(batch)), 2)
    prompts_a = _parts.encode([pair.text_a for pair in batch])
    prompts_b = _parts.encode([pair.text_b for pair in batch])
    run = _parts.denoise(prompts_a, _parts.noise(seeds), keep=LADDER[1:])
    own = _checker.score(_parts.decode(run.latents), [pair.a for pair in batch]).soft
    deepest = LADDER[-1]
    again = _parts.denoise(prompts_a, run.kept[deepest], skip=deepest).latents
    error = float((again - run.latents).abs().max())
    scores = []
    for k in LADDER:
        start = run.kept[k] if k else _parts.noise([seed + 1 for seed in seeds])
        images = _parts.decode(_parts.denoise(prompts_b, start, skip=k).latents)
        scores.append(_checker.score(images, [pair.b for pair in batch]).soft)
    return np.stack(scores, 1), own, error


def _row(relative: Table) -> dict[str, Any]:
    n = len(relative)
    sem = relative.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(relative.shape[1])
    return {
        "n": n,
        "mean": [round(float(v), 4) for v in relative.mean(0)],
        "sem": [round(float(v), 4) for v in sem],
    }


def by_similarity(similarity: Table, relative: Table) -> list[dict[str, Any]]:
    """Rows of about equal size by similarity; the last one holds (near) exact repeats.

    Their edges cover -1 to 1.
    """
    below = similarity < REPEAT
    inner = np.quantile(similarity[below], np.arange(1, BINS) / BINS)
    edges = [-1.0, *(round(float(edge), 4) for edge in inner), REPEAT, 1.0]
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = (similarity >= low) & ((similarity < high) | (high == 1.0))
        if inside.any():
            rows.append({"similarity_min": low, "similarity_max": high, **_row(relative[inside])})
    return rows


def run(processes: int = 1) -> dict[str, Any]:
    """Measure, and write ``quality.json`` beside the weights."""
    rng = np.random.default_rng(77)
    todo = pairs.natural(NATURAL, rng) + pairs.made(MADE_EACH, rng)
    tasks = [(i, todo[i : i + BATCH]) for i in range(0, len(todo), BATCH)]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            done = list(tqdm(pool.imap(score_batch, tasks), total=len(tasks), desc="quality"))
    else:
        done = [score_batch(task) for task in tqdm(tasks, desc="quality")]
    scores = np.concatenate([d[0] for d in done])
    own = np.concatenate([d[1] for d in done])
    if own.mean() < LEAST_OWN_SCORE:
        raise AssertionError(f"cached images score {own.mean():.3f} against their own prompts")
    # Batches of two sizes may round differently; within a batch, resuming is exact.
    if max(d[2] for d in done) != 0.0:
        raise AssertionError("resuming a prompt from its own latents does not give its own image")
    relative = scores / np.maximum(scores[:, :1], LEAST_DENOMINATOR)
    # Where the denominator was raised, quality is still relative to itself at K = 0.
    relative[:, 0] = 1.0
    kinds = np.array([pair.kind for pair in todo])
    natural = np.array([pair.natural for pair in todo])
    similarity = np.array([pair.similarity for pair in todo])
    out = {
        "skipped_steps": list(LADDER),
        "total_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "score": "mean probability of the stated attributes (attribute checker), relative to K = 0",
        "by_similarity": by_similarity(similarity, relative),
        "by_kind": {
            kind: _row(relative[kinds == kind]) for kind in pairs.KINDS if (kinds == kind).any()
        },
        "overall": _row(relative[natural]),
        "absolute": _row(scores[natural]),
        "own_prompt_score": round(float(own.mean()), 4),
        "model_fingerprint": folders.fingerprint(),
        "measured": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    (folders.SDXL / "quality.json").write_text(json.dumps(out, indent=1) + "\n")
    return out
