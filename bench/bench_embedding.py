"""Prompts embedded a second: as the router does it, against one padded call for each prompt.

Both on one thread, over made-up prompts, none twice: the built-in text tower on its own grammar, and the ones
of open_clip's ViT-B-32 and ViT-L-14 in their full size, untrained (`--towers`), on the lengths that people
write. Prompts arrive all at once, and by Poisson at half of what one padded call each could take. In turns;
ratios are of the same turn.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from router_load.processes import machine

from gesso import torchvision_shim
from gesso_router.embedding import TextEmbedder
from gesso_router.settings import RouterSettings
from gesso_router.text_tower import encoder_of, load_model
from gesso_simulator.workloads import sessions

OUT = Path(__file__).parent / "out"
BUILTIN = "builtin://tiny-clip"
#: Words of a prompt, median and spread (of its logarithm), as counted in: PartiPrompts, the log that was
#: published with Argus, the first rows of DiffusionDB 2M.
LENGTHS = {"short": (8, 0.78), "usual": (11, 0.78), "long": (26, 0.71)}
#: What the tiny tower was trained on; it takes 32 tokens at most.
OWN = "its own"
VOCABULARY = (
    "a the of in with portrait castle forest river mountain city street robot dragon cat astronaut painting "
    "photograph oil watercolor sketch cinematic lighting highly detailed sharp focus smooth golden hour mist "
    "by night winter ancient futuristic concept art trending elegant intricate digital illustration"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--towers", default=f"{BUILTIN},ViT-B-32,ViT-L-14")
    parser.add_argument("--prompts", type=int, default=48, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    console = Console(stderr=True)
    table = Table("tower", "prompts", "padded each", "router", "ratio", "p95 ms", "of padded")
    rows = []
    cases = [
        (name, lengths)
        for name in given.towers.split(",")
        for lengths in ((OWN,) if name == BUILTIN else LENGTHS)
    ]
    for name, lengths in cases:
        console.print(f"{name}, {lengths} prompts ...")
        row = asyncio.run(_compared(name, lengths, given.prompts, given.rounds))
        rows.append({"tower": name, "prompts": lengths, **row})
        table.add_row(
            name,
            lengths,
            f"{row['padded_per_second']:.0f}/s",
            f"{row['router_per_second']:.0f}/s",
            f"{row['ratio']:.2f}",
            f"{row['router_p95_ms']:.1f}",
            f"{row['p95_ratio']:.2f}",
        )
    console.print(table)
    report = {
        "machine": machine(),
        "words": LENGTHS,
        "prompts": given.prompts,
        "rounds": given.rounds,
        "rows": rows,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "embedding.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {OUT / 'embedding.json'}")


def _prompts(lengths: str, count: int, rng: np.random.Generator) -> list[str]:
    if lengths == OWN:
        stream = sessions.prompts(sessions.SessionMix(), rng)
        return [f"{prompt}, {i}" for i, prompt in enumerate(itertools.islice(stream, count))]
    median, spread = LENGTHS[lengths]
    vocabulary = VOCABULARY.split()
    words = np.clip(rng.lognormal(np.log(median), spread, count), 1, 70).astype(int)
    return [" ".join(rng.choice(vocabulary, n)) + f" {i}" for i, n in enumerate(words)]


async def _compared(name: str, lengths: str, count: int, rounds: int) -> dict[str, Any]:
    model, tokenizer = _tower(name)
    encode = encoder_of(model, tokenizer)

    def padded(text: str) -> Any:
        with torch.inference_mode():
            return model.encode_text(tokenizer([text]), normalize=True).numpy()[0]

    rng = np.random.default_rng(0)
    probe = _prompts(lengths, 8, rng)
    error = max(
        float(np.abs(padded(t) - v).max()) for t, v in zip(probe, encode(probe), strict=True)
    )
    rows: list[dict[str, float]] = []
    for _ in range(rounds):
        texts = _prompts(lengths, count, rng)
        began = time.perf_counter()
        for text in texts:
            padded(text)
        alone = count / (time.perf_counter() - began)
        together, _ = await _through(encode, texts, [0.0] * count)
        at = np.cumsum(rng.exponential(2 / alone, count)).tolist()
        _, router_p95 = await _through(encode, _prompts(lengths, count, rng), at)
        padded_p95 = await _one_by_one(padded, _prompts(lengths, count, rng), at)
        rows.append(
            {
                "padded_per_second": alone,
                "router_per_second": together,
                "ratio": together / alone,
                "router_p95_ms": router_p95 * 1000,
                "padded_p95_ms": padded_p95 * 1000,
                "p95_ratio": router_p95 / padded_p95,
            }
        )
    return {k: statistics.median(r[k] for r in rows) for k in rows[0]} | {"largest_error": error}


def _tower(name: str) -> tuple[Any, Any]:
    """Model and tokenizer as open_clip gives them; full-size ones untrained, the same each time."""
    if name == BUILTIN:
        return load_model(name)
    torchvision_shim.install()  # before open_clip
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model(name), open_clip.get_tokenizer(name)


async def _through(encode: Any, texts: Sequence[str], at: Sequence[float]) -> tuple[float, float]:
    """Prompts a second through the router's embedder, and the p95 of their seconds."""
    settings = RouterSettings()
    embedder = TextEmbedder(encode, settings.embed_batch, settings.embed_cache, math.inf)
    found = await _played(embedder.embed, texts, at)
    await embedder.close()
    return found


async def _one_by_one(
    padded: Callable[[str], Any], texts: Sequence[str], at: Sequence[float]
) -> float:
    turn = asyncio.Lock()

    async def embed(text: str) -> Any:
        async with turn:
            return await asyncio.to_thread(padded, text)

    return (await _played(embed, texts, at))[1]


async def _played(
    embed: Callable[[str], Awaitable[Any]], texts: Sequence[str], at: Sequence[float]
) -> tuple[float, float]:
    began = time.perf_counter()

    async def one(text: str, due: float) -> float:
        await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
        await embed(text)
        return time.perf_counter() - began - due

    took = await asyncio.gather(*map(one, texts, at))
    return len(texts) / (time.perf_counter() - began), float(np.quantile(took, 0.95))


if __name__ == "__main__":
    main()
