"""Whether predicted quality comes out where latents are handed on: sessions served from a living cache.

    python bench/bench_handed_on.py [--streams 11,12] [--prompts 864] [--worth 0.0007]

The predictor was learned from latents of runs in full, each prompt starting from its nearest neighbour. A
router chooses among several neighbours the one that looks best, and its cache holds what runs left that had
skipped steps themselves. Here prompts are served in that way: four neighbours, the router's options, its
choice at a fixed worth of a skipped step, its rule of what stays in the cache. Each image is held against the
same prompt and seed at K = 0, by the attribute checker. A process for each stream; ten minutes of two cores.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import itertools
import json
import multiprocessing
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from gesso.builtin import TINY_CLIP
from gesso_router.predictor import PREDICTOR_NAME, read_learned
from gesso_router.routing.keep import keep_latents
from gesso_router.routing.predictors.learned import LearnedPredictor
from gesso_router.routing.quality import Match, Option, serving_options
from gesso_simulator.workloads.sessions import SessionMix, SessionPrompt, session_prompts
from gesso_worker.models.tiny import folders
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate.pairs import embed
from gesso_worker.models.tiny.evaluate.quality import LADDER, LEAST_DENOMINATOR
from gesso_worker.models.tiny.sampling import STEPS, Parts

OUT: Final = Path(__file__).parent / "out" / "handed_on.json"
#: Prompts that fill the cache, in full.
WARM_UP: Final = 64
BATCH: Final = 16
NEIGHBOURS: Final = 4
NOISE_SEED: Final = 7_000_003

Array = np.ndarray[Any, Any]


@dataclass
class Entry:
    """What a run left: latents by level, and through how many runs they were handed on."""

    latents: dict[int, torch.Tensor]
    handed_on: int


class Stream:
    """One stream of prompts, served in order."""

    def __init__(self, seed: int, count: int) -> None:
        torch.set_num_threads(1)
        self._parts, self._checker = Parts.load(), AttributeChecker.load()
        self._predictor: LearnedPredictor = read_learned(
            folders.SDXL / PREDICTOR_NAME, LADDER, STEPS, TINY_CLIP
        )
        drawn = session_prompts(SessionMix(), np.random.default_rng(seed))
        self._told: list[SessionPrompt] = list(itertools.islice(drawn, count))
        self._vectors = embed([item.prompt for item in self._told])
        self._entries: dict[int, Entry] = {}

    def serve(self, worth: float) -> list[dict[str, float]]:
        """Each prompt's K, predicted and true relative quality, and hands that its latents went through."""
        found = []
        for first in range(0, len(self._told), BATCH):
            rows = list(range(first, min(len(self._told), first + BATCH)))
            full, kept = self._made(rows, [self._noise(row) for row in rows], 0)
            if first < WARM_UP:
                for row, latents in zip(rows, kept, strict=True):
                    self._entries[row] = Entry(latents, 0)
            else:
                found += self._batch(rows, np.maximum(full, LEAST_DENOMINATOR), kept, worth)
        return found

    def _batch(
        self, rows: list[int], full: Array, kept: list[dict[int, torch.Tensor]], worth: float
    ) -> list[dict[str, float]]:
        """Those that come together know nothing of each other."""
        matches = {row: self._matches(row) for row in rows}
        chosen = {
            row: max(
                serving_options(self._predictor, matches[row], self._vectors[row]),
                key=lambda o: (o.quality + worth * o.skipped_steps, o.skipped_steps),
            )
            for row in rows
        }
        made: list[tuple[int, float, dict[int, torch.Tensor]]] = []
        for k in LADDER[1:]:
            mine = [row for row in rows if chosen[row].skipped_steps == k]
            starts = [self._entries[_source(chosen[row])].latents[k] for row in mine]
            if mine:
                soft, left = self._made(mine, starts, k)
                made += zip(mine, soft / full[[r - rows[0] for r in mine]], left, strict=True)
        in_full = [row for row in rows if chosen[row].skipped_steps == 0]
        made += [(row, 1.0, kept[row - rows[0]]) for row in in_full]
        found = []
        for row, true, left in made:
            option = chosen[row]
            k, hands = option.skipped_steps, 0
            if option.match is not None:
                hands = self._entries[_source(option)].handed_on + 1
            if left and keep_latents(k, option.quality, STEPS, matches[row], LADDER):
                self._entries[row] = Entry(left, hands)
            found.append({"k": k, "predicted": option.quality, "true": float(true), "hands": hands})
        return found

    def _matches(self, row: int) -> list[Match]:
        rows = np.array(sorted(self._entries))
        similar = self._vectors[rows] @ self._vectors[row]
        nearest = np.argsort(-similar, kind="stable")[:NEIGHBOURS]
        return [
            Match(
                str(rows[i]),
                "worker",
                min(1.0, float(similar[i])),
                tuple(sorted(self._entries[int(rows[i])].latents)),
                self._vectors[rows[i]],
            )
            for i in nearest
        ]

    def _noise(self, row: int) -> torch.Tensor:
        return self._parts.noise([NOISE_SEED + row])[0]

    def _made(
        self, rows: list[int], starts: list[torch.Tensor], skip: int
    ) -> tuple[Array, list[dict[int, torch.Tensor]]]:
        """Scores of images made from latents at K, and what each run leaves above it."""
        levels = [k for k in LADDER if k > skip]
        prompts = self._parts.encode([self._told[row].prompt for row in rows])
        run = self._parts.denoise(prompts, torch.stack(starts), skip=skip, keep=levels)
        scenes = [self._told[row].scene for row in rows]
        soft = self._checker.score(self._parts.decode(run.latents), scenes).soft
        return soft, [{k: run.kept[k][i].clone() for k in levels} for i in range(len(rows))]


def _source(option: Option) -> int:
    assert option.match is not None
    return int(option.match.entry_id)


def served(task: tuple[int, int, float]) -> list[dict[str, float]]:
    """A stream, in a process of its own."""
    seed, count, worth = task
    with torch.inference_mode():
        return Stream(seed, count).serve(worth)


def figures(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means over prompts, with the standard error of true less predicted."""
    k, predicted, true = (np.array([row[n] for row in rows]) for n in ("k", "predicted", "true"))
    off = true - predicted
    return {
        "prompts": len(rows),
        "mean_skipped_steps": round(float(k.mean()), 3),
        "predicted": round(float(predicted.mean()), 4),
        "true": round(float(true.mean()), 4),
        "true_less_predicted": round(float(off.mean()), 4),
        "standard_error": round(float(off.std(ddof=1) / np.sqrt(len(off))), 4)
        if len(off) > 1
        else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", default="11,12", help="seeds of streams of prompts")
    parser.add_argument("--prompts", type=int, default=864, help="of each stream")
    parser.add_argument("--worth", type=float, default=0.0007, help="of a skipped step, in quality")
    given = parser.parse_args()
    tasks = [(int(seed), given.prompts, given.worth) for seed in given.streams.split(",")]
    with multiprocessing.get_context("spawn").Pool(min(len(tasks), os.cpu_count() or 1)) as pool:
        rows = [row for found in pool.map(served, tasks, chunksize=1) for row in found]
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "model_fingerprint": folders.fingerprint(),
        **vars(given),
        "all": figures(rows),
        "by_skipped_steps": {
            k: figures(r) for k in LADDER if (r := [x for x in rows if x["k"] == k])
        },
        "by_hands": {
            h: figures([x for x in rows if x["hands"] == h])
            for h in sorted({x["hands"] for x in rows})
        },
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
