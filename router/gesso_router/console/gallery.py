"""The images that went out last, each with what it started from. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from gesso_router.routing.quality import Vector

#: Cosine of two embeddings of the same prompt: what float32 makes of 1.
SAME_PROMPT = 0.99999


@dataclass(frozen=True)
class Source:
    """The cache entry whose latents an image started from: the worker that holds it, and how near it was.

    None: it is none that the router had found.
    """

    worker: str
    entry_id: str
    similarity: float | None
    embedding: Vector | None = None


@dataclass(frozen=True)
class Picture:
    """An image that went out; `embedding` is its prompt's, if it left latents. `at_s` is in unix seconds.

    `owner` is the tenant whose key asked for it: nobody else is shown it. Empty: there are no keys.
    """

    request_id: str
    at_s: float
    prompt: str
    data: bytes
    media_type: str
    skipped_steps: int
    steps: int
    quality: float
    similarity: float
    worker: str
    model: str
    seed: int
    queue_seconds: float
    generate_seconds: float
    source: Source | None = None
    embedding: Vector | None = None
    owner: str = ""


class Gallery:
    """At most `most` pictures and `most_bytes` of image data; the oldest go first."""

    def __init__(self, most: int = 48, most_bytes: int = 48 * 1024 * 1024) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._held: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0
        #: Pictures hung since the start: the number of the newest.
        self.hung = 0

    def __len__(self) -> int:
        return len(self._held)

    def hang(self, picture: Picture) -> int:
        """Takes a picture; gives its number. One larger than the bound is not kept."""
        self.hung += 1
        self._held[self.hung] = picture
        self._bytes += len(picture.data)
        while self._held and (len(self._held) > self._most or self._bytes > self._most_bytes):
            _, gone = self._held.popitem(last=False)
            self._bytes -= len(gone.data)
        return self.hung

    def picture(self, number: int, owner: str = "") -> Picture | None:
        """A picture of an owner by its number; None where it is gone, never was, or is another's."""
        found = self._held.get(number)
        return found if found is not None and found.owner == owner else None

    def since(self, number: int, owner: str = "") -> list[dict[str, Any]]:
        """Labels of an owner's pictures after this number, the newest first."""
        first = 0 if number > self.hung else number
        own = (n for n, p in reversed(self._held.items()) if p.owner == owner)
        return [self.label(n) for n in own if n > first]

    def label(self, number: int) -> dict[str, Any]:
        """All but the image itself; `source.picture` is the number of the same owner's picture that left the
        latents, if it still hangs. Raises KeyError.
        """
        picture = self._held[number]
        source = picture.source
        return {
            "number": number,
            "request_id": picture.request_id,
            "at": round(picture.at_s, 3),
            "prompt": picture.prompt,
            "skipped_steps": picture.skipped_steps,
            "steps": picture.steps,
            "quality": round(picture.quality, 4),
            "similarity": round(picture.similarity, 4),
            "worker": picture.worker,
            "model": picture.model,
            "seed": str(picture.seed),  # JavaScript's numbers end at 2^53
            "queue_seconds": round(picture.queue_seconds, 3),
            "generate_seconds": round(picture.generate_seconds, 3),
            "source": None
            if source is None
            else {
                "worker": source.worker,
                "entry": source.entry_id,
                "similarity": None if source.similarity is None else round(source.similarity, 4),
                "picture": self._origin(number, source, picture.owner),
            },
        }

    def _origin(self, before: int, source: Source, owner: str) -> int | None:
        """The owner's newest earlier picture of the prompt that the latents were left by."""
        if source.embedding is None:
            return None
        for number, picture in reversed(self._held.items()):
            own = picture.embedding
            if (
                number >= before
                or picture.owner != owner
                or own is None
                or own.shape != source.embedding.shape
            ):
                continue
            if float(np.dot(own, source.embedding)) >= SAME_PROMPT:
                return number
        return None
