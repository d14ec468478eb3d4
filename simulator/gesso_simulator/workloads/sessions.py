"""Prompts as users send them: sessions in which each prompt changes a little of an earlier one, interleaved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gesso_worker.models.tiny.captions import caption
from gesso_worker.models.tiny.scenes import Scene, mutate, sample_scene


@dataclass(frozen=True)
class PromptRequest:
    """One request of a workload: when it arrives, what it asks for, and the scene that a checker can verify."""

    index: int
    at_s: float
    prompt: str
    seed: int
    scene: Scene


@dataclass(frozen=True)
class SessionMix:
    """How users behave.

    `users` are active at once; a session has a geometric number of prompts of the given mean; a share of new
    sessions start from what somebody has asked before (a popular prompt, word for word or with one change).
    `again_share` of a session's prompts repeat the one before, for another seed: in logs of real users 13 to
    15 % of the prompts are exact repeats of a recent one.
    """

    users: int = 12
    mean_length: float = 8.0
    popular_share: float = 0.5
    repeat_share: float = 0.3
    again_share: float = 0.12


@dataclass(frozen=True)
class SessionPrompt:
    """One prompt, its scene, and the session that it belongs to: counted from 0 as sessions begin."""

    session: int
    prompt: str
    scene: Scene


def session_prompts(mix: SessionMix, rng: np.random.Generator) -> Iterator[SessionPrompt]:
    """An endless stream of prompts, sessions interleaved at random."""
    past: list[tuple[str, Scene]] = []
    active: list[list[tuple[str, Scene]]] = [[] for _ in range(mix.users)]
    names = [0] * mix.users
    begun = 0
    while True:
        user = int(rng.integers(mix.users))
        queue = active[user]
        if not queue:
            queue.extend(_new_session(mix, past, rng))
            names[user], begun = begun, begun + 1
        item = queue.pop(0)
        past.append(item)
        yield SessionPrompt(names[user], *item)


def prompts(mix: SessionMix, rng: np.random.Generator) -> Iterator[tuple[str, Scene]]:
    """`session_prompts` without their sessions: captions and scenes."""
    for item in session_prompts(mix, rng):
        yield item.prompt, item.scene


def _new_session(
    mix: SessionMix, past: Sequence[tuple[str, Scene]], rng: np.random.Generator
) -> list[tuple[str, Scene]]:
    length = int(rng.geometric(1 / mix.mean_length))
    if past and rng.random() < mix.popular_share:
        opener = past[int(rng.integers(len(past)))]
        if rng.random() >= mix.repeat_share:
            opener = _told(mutate(opener[1], rng), rng)
    else:
        opener = _told(sample_scene(rng), rng)
    items = [opener]
    while len(items) < length:
        if rng.random() < mix.again_share:
            items.append(items[-1])
            continue
        changes = int(rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))
        items.append(_told(mutate(items[-1][1], rng, changes=changes), rng))
    return items


def _told(scene: Scene, rng: np.random.Generator) -> tuple[str, Scene]:
    return caption(scene, rng), scene


def requests(
    arrivals_s: Sequence[float], stream: Iterator[tuple[str, Scene]], rng: np.random.Generator
) -> list[PromptRequest]:
    """Gives each arrival the next prompt of the stream and a seed."""
    out: list[PromptRequest] = []
    for index, at_s in enumerate(arrivals_s):
        prompt, scene = next(stream)
        out.append(PromptRequest(index, at_s, prompt, int(rng.integers(2**31)), scene))
    return out
