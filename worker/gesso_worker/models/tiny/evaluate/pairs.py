"""Pairs of prompts as a cache sees them: B, and the nearest earlier prompt A to resume from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from gesso_worker.models.tiny import captions, clip_model, scenes

#: How one scene differs from another, from nothing to everything.
KINDS: Final = ("repeat", *scenes.KINDS, "several", "unrelated")
REPEATS: Final = 0.1


@dataclass(frozen=True)
class Pair:
    """Prompt B after prompt A, how they differ, and the cosine similarity of their CLIP texts."""

    a: scenes.Scene
    b: scenes.Scene
    text_a: str
    text_b: str
    kind: str
    similarity: float
    #: Whether the pair arose in sessions (so stands for a workload) or was made to fill its kind.
    natural: bool


def difference(a: scenes.Scene, b: scenes.Scene) -> str:
    """Which of :data:`KINDS` the change from A to B is.

    An attribute that only one of the two states has changed.
    """
    if scenes.stated_values(a) == scenes.stated_values(b):
        return "repeat"
    if len(a.things) != len(b.things):
        return "unrelated"
    mine, theirs = scenes.stated_values(a), scenes.stated_values(b)
    if a.is_pair and a.things == b.things[::-1]:
        # The same two things the other way round: a change of layout, not of both things.
        theirs = {slot.translate(str.maketrans("01", "10")): v for slot, v in theirs.items()}
        theirs["layout"] = "swapped"
    kinds = {
        slot.rstrip("01")
        for slot in mine.keys() | theirs.keys()
        if mine.get(slot) != theirs.get(slot)
    }
    if "layout" in kinds and (a.is_count or b.is_count):
        kinds -= {"size"}
    if len(kinds) == 1:
        return kinds.pop()
    return "several" if len(kinds) <= 3 else "unrelated"


@torch.inference_mode()
def embed(texts: list[str]) -> np.ndarray[Any, Any]:
    """Unit CLIP text embeddings, of shape (n, 64)."""
    model, tokens = clip_model.load()
    parts = [
        model.encode_text(tokens(texts[i : i + 200]), normalize=True)
        for i in range(0, len(texts), 200)
    ]
    return torch.cat(parts).numpy()


def natural(n: int, rng: np.random.Generator) -> list[Pair]:
    """Each prompt of interleaved sessions with the most similar one before it, after a while of warming up."""
    warm = n // 3
    told: list[tuple[scenes.Scene, str]] = []
    open_sessions: list[list[scenes.Scene]] = []
    while len(told) < n + warm:
        if told and rng.random() < REPEATS:
            told.append(told[int(rng.integers(len(told)))])
            continue
        if len(open_sessions) < 6:
            open_sessions.append(scenes.session(rng, 3 + int(rng.integers(8))))
        mine = open_sessions[int(rng.integers(len(open_sessions)))]
        scene = mine.pop(0)
        open_sessions = [rest for rest in open_sessions if rest]
        told.append((scene, captions.caption(scene, rng)))
    vectors = embed([text for _, text in told])
    out = []
    for i in range(warm, n + warm):
        similar = vectors[:i] @ vectors[i]
        j = int(similar.argmax())
        (a, text_a), (b, text_b) = told[j], told[i]
        out.append(Pair(a, b, text_a, text_b, difference(a, b), float(similar[j]), True))
    return out


def made(each: int, rng: np.random.Generator) -> list[Pair]:
    """``each`` pairs of every single change, of exact repeats and of unrelated prompts."""
    drawn: list[tuple[scenes.Scene, scenes.Scene, str, str, str]] = []
    for kind in ("repeat", *scenes.KINDS, "unrelated"):
        count = 0
        while count < each:
            a = scenes.sample_scene(rng)
            text_a = captions.caption(a, rng)
            b, text_b = a, text_a
            if kind == "unrelated":
                b = scenes.sample_scene(rng)
            elif kind != "repeat":
                if kind not in scenes.applicable_kinds(a):
                    continue
                b = scenes.mutate(a, rng, kind=kind)
            if difference(a, b) != kind:
                continue
            drawn.append(
                (a, b, text_a, text_b if kind == "repeat" else captions.caption(b, rng), kind)
            )
            count += 1
    vectors = embed([d[2] for d in drawn] + [d[3] for d in drawn])
    n = len(drawn)
    similar = (vectors[:n] * vectors[n:]).sum(1)
    return [
        Pair(a, b, text_a, text_b, kind, float(s), False)
        for (a, b, text_a, text_b, kind), s in zip(drawn, similar, strict=True)
    ]
