"""Trains the learned quality predictor of the tiny SD-XL, and reads the measured table that it learns from.

First a network learns, from pairs of prompts alone, what changed between them: no image is needed
for that, so there are as many pairs as one likes. Then the loss that each kind of change brings is
learned from the table.
"""

from __future__ import annotations

import csv
import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from gesso_router.routing.predictors.features import ChangeFeatures
from gesso_router.routing.predictors.fit import fit
from gesso_router.routing.predictors.learned import Fallback, LearnedPredictor
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_simulator.workloads.sessions import SessionMix, session_prompts
from gesso_worker.models.tiny import scenes
from gesso_worker.models.tiny.evaluate.pairs import embed
from gesso_worker.models.tiny.evaluate.quality import LADDER, LEAST_DENOMINATOR, by_similarity
from gesso_worker.models.tiny.sampling import STEPS

#: Of the stream that the network learns from: another than the table's.
STREAM_SEED: Final = 7
PAIRS: Final = 60_000
#: Neighbours are sought among so many earlier prompts.
WINDOW: Final = 3_000
WIDTH: Final = 48
EPOCHS: Final = 40
BATCH: Final = 256
#: Unit vectors of 64 numbers are small; so scaled they reach the bends of tanh.
SCALE: Final = 8.0
KNOTS: Final = (0.5, 0.7, 0.8, 0.9, 0.97)
PRIOR_SDS: Final = (0.003, 0.01, 0.03, 0.1, 0.3)
CLASSES: Final = 6

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """Rows of the quality table: `relative` (n, seeds, 6) unclipped, embeddings (n, e)."""

    session: Array
    split: Array
    change: Array
    similarity: Array
    prompt: Array
    neighbour: Array
    relative: Array

    def __len__(self) -> int:
        return len(self.session)

    def __getitem__(self, rows: Array) -> Measured:
        return Measured(
            self.session[rows],
            self.split[rows],
            self.change[rows],
            self.similarity[rows],
            self.prompt[rows],
            self.neighbour[rows],
            self.relative[rows],
        )

    @classmethod
    def read(cls, path: Path) -> Measured:
        """The table as `bench_quality_table.py` wrote it; prompts are embedded anew."""
        with gzip.open(path, "rt", newline="") as file:
            rows = list(csv.DictReader(file))
        seeds = sum(name.endswith("_k0") for name in rows[0])
        soft = np.array(
            [[[float(row[f"s{s}_k{k}"]) for k in LADDER] for s in range(seeds)] for row in rows]
        )
        relative = soft / np.maximum(soft[..., :1], LEAST_DENOMINATOR)
        relative[..., 0] = 1.0
        return cls(
            session=np.array([int(row["session"]) for row in rows]),
            split=np.array([row["split"] for row in rows]),
            change=np.array([row["change"] for row in rows]),
            similarity=np.array([float(row["similarity"]) for row in rows]),
            prompt=embed([row["prompt"] for row in rows]),
            neighbour=embed([row["neighbour_prompt"] for row in rows]),
            relative=relative,
        )


class ChangeNetwork(nn.Module):
    """The network of `ChangeFeatures`, to be trained."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.projection = nn.Linear(size, WIDTH)
        self.hidden = nn.Linear(3 * WIDTH + 1, WIDTH)
        self.change = nn.Linear(WIDTH, outputs)

    def forward(self, prompt: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
        """Extents of change (n, outputs) from unit vectors (n, size)."""
        b = torch.tanh(self.projection(prompt * SCALE))
        a = torch.tanh(self.projection(neighbour * SCALE))
        near = (prompt * neighbour).sum(1, keepdim=True)
        joined = torch.cat([b, (b - a).abs(), a * b, near], dim=1)
        found: torch.Tensor = self.change(torch.relu(self.hidden(joined)))
        return found


def extents(prompt: scenes.Scene, neighbour: scenes.Scene) -> list[float]:
    """How much of what the prompt states its neighbour does not: by kind, as shares of the stated slots.

    Then 1 / slots stated, what only the neighbour states (as a share), and whether one is of
    several things and the other is not.
    """
    mine, theirs = scenes.stated_values(prompt), scenes.stated_values(neighbour)
    changed = [slot.rstrip("01") for slot, value in mine.items() if theirs.get(slot) != value]
    structure = (prompt.is_count, prompt.is_pair) != (neighbour.is_count, neighbour.is_pair)
    return [
        *(changed.count(kind) / len(mine) for kind in scenes.KINDS),
        1 / len(mine),
        len(theirs.keys() - mine.keys()) / len(mine),
        float(structure),
    ]


def change_pairs(count: int) -> tuple[Array, Array, Array]:
    """Embeddings of prompts (n, e) and of their nearest earlier ones, and the extents of change (n, c)."""
    stream = session_prompts(SessionMix(), np.random.default_rng(STREAM_SEED))
    warm = 200
    told = list(itertools.islice(stream, count + warm))
    vectors = np.concatenate(
        [
            embed([item.prompt for item in told[i : i + 2000]])
            for i in tqdm(range(0, len(told), 2000), desc="embedding pairs")
        ]
    )
    nearest = []
    for i in range(warm, len(told)):
        first = max(0, i - WINDOW)
        nearest.append(first + int((vectors[first:i] @ vectors[i]).argmax()))
    wanted = [extents(told[warm + i].scene, told[j].scene) for i, j in enumerate(nearest)]
    return vectors[warm:], vectors[nearest], np.array(wanted, np.float32)


def train_network(prompt: Array, neighbour: Array, wanted: Array) -> ChangeNetwork:
    """Deterministic. The last tenth of the pairs is kept apart to tell how much is recognised."""
    torch.manual_seed(0)
    b, a, y = (torch.from_numpy(np.ascontiguousarray(x)) for x in (prompt, neighbour, wanted))
    spread, n = y.std(0), len(y) - len(y) // 10
    network = ChangeNetwork(b.shape[1], y.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = EPOCHS * -(-n // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in tqdm(range(EPOCHS), desc="change network"):
        for rows in torch.randperm(n).split(BATCH):
            loss = (((network(b[rows], a[rows]) - y[rows]) / spread) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        left = ((network(b[n:], a[n:]) - y[n:]) ** 2).mean(0) / y[n:].var(0)
    print("share of each extent's variance that is recognised:", (1 - left).numpy().round(2))
    return network.eval().requires_grad_(False)


def unscaled(network: ChangeNetwork) -> ChangeFeatures:
    """The network as features, not yet standardised."""
    size = len(KNOTS) + network.change.out_features
    return ChangeFeatures(
        projection=network.projection.weight.numpy() * SCALE,
        projection_bias=network.projection.bias.numpy(),
        hidden=network.hidden.weight.numpy(),
        hidden_bias=network.hidden.bias.numpy(),
        change=network.change.weight.numpy(),
        change_bias=network.change.bias.numpy(),
        knots=np.array(KNOTS, np.float32),
        mean=np.zeros(size, np.float32),
        scale=np.ones(size, np.float32),
    )


def standardised(features: ChangeFeatures, data: Measured) -> ChangeFeatures:
    """The same with mean 0 and standard deviation 1 on some rows."""
    raw = features.raw(data.similarity, data.prompt, data.neighbour)
    scale = np.maximum(raw.std(axis=0), 1e-3).astype(np.float32)
    return replace(features, mean=raw.mean(axis=0).astype(np.float32), scale=scale)


def similarity_table(data: Measured) -> SimilarityPredictor:
    """What similarity alone tells, of the same rows: mean curves by bins of it."""
    table = {
        "skipped_steps": list(LADDER),
        "by_similarity": by_similarity(data.similarity, data.relative.mean(axis=1)),
    }
    return SimilarityPredictor.from_table(table, LADDER, STEPS)


def learn(features: ChangeFeatures, data: Measured, prior_sd: float) -> LearnedPredictor:
    """The predictor on some rows."""
    phi = features(data.similarity, data.prompt, data.neighbour)
    posterior, spread = fit(phi, data.relative[:, :, 1:], prior_sd)
    deepest = np.maximum(0.0, -(phi @ posterior.mean[-1]))
    edges = np.quantile(deepest, np.arange(1, CLASSES) / CLASSES)
    table = similarity_table(data)
    left = data.relative.mean(axis=1) - np.array([table.quality(s) for s in data.similarity])
    return LearnedPredictor(
        ladder=LADDER,
        levels=tuple(float(k) for k in LADDER[1:]),
        features=features,
        posterior=posterior,
        spread=spread,
        class_edges=tuple(sorted({round(float(e), 3) for e in edges} - {0.0})),
        fallback=Fallback(table, left[:, 1:].std(axis=0)),
    )


def curves(predictor: Any, data: Measured) -> Array:
    """Predicted relative quality (n, 6)."""
    return np.array(
        [
            predictor.quality(float(s), b, a)
            for s, b, a in zip(data.similarity, data.prompt, data.neighbour, strict=True)
        ]
    )


def rows_in(data: Measured, splits: Sequence[str]) -> Measured:
    """The rows of some splits."""
    return data[np.isin(data.split, splits)]


def train(data: Measured, known: ChangeFeatures | None = None) -> LearnedPredictor:
    """All of it: the network (or the one of `known`), the prior, the weights.

    The validation sessions choose the prior; the weights come from these and the training ones.
    """
    training, validation = rows_in(data, ["train"]), rows_in(data, ["validation"])
    plain = unscaled(train_network(*change_pairs(PAIRS))) if known is None else known
    features = standardised(plain, training)
    truth = validation.relative.mean(axis=1)
    errors = {}
    for prior_sd in PRIOR_SDS:
        found = curves(learn(features, training, prior_sd), validation)
        errors[prior_sd] = float(((found - truth) ** 2).mean())
        print(f"prior sd {prior_sd:g}: mean squared error on validation {errors[prior_sd]:.5f}")
    prior_sd = min(errors, key=lambda sd: errors[sd])
    return learn(features, rows_in(data, ["train", "validation"]), prior_sd)
