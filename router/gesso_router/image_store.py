"""Images that wait a short while to be fetched by URL (`response_format: url`), in memory and bounded."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StoredImage:
    """An image as it is served."""

    data: bytes
    media_type: str


def new_name() -> str:
    """192 random bits: who knows it may fetch the image, and nobody can guess it."""
    return secrets.token_urlsafe(24)


class ImageStore:
    """Images by their names, see `new_name`."""

    def __init__(
        self,
        most_bytes: int = 64 * 2**20,
        seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `most_bytes` in all, each for `seconds`; `clock` gives monotonic seconds."""
        self._most = most_bytes
        self.seconds = seconds
        self._clock = clock
        self._images: OrderedDict[str, tuple[StoredImage, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._images)

    def put(self, name: str, image: StoredImage) -> None:
        """Keeps an image, instead of the oldest where there is no room; one that is still here stays as it is.

        Raises ValueError on one that is larger than the whole store.
        """
        if len(image.data) > self._most:
            raise ValueError(f"an image of {len(image.data)} bytes: at most {self._most} are kept")
        self._forget()
        if name in self._images:
            return
        while self._images and self.bytes + len(image.data) > self._most:
            self._drop(next(iter(self._images)))
        self._images[name] = (image, self._clock())
        self.bytes += len(image.data)

    def get(self, name: str) -> StoredImage | None:
        """The image of that name; None if there is none, or none any more."""
        self._forget()
        found = self._images.get(name)
        return found[0] if found is not None else None

    def _forget(self) -> None:
        now = self._clock()
        while self._images:
            name, (_, put_s) = next(iter(self._images.items()))
            if now - put_s < self.seconds:
                return
            self._drop(name)

    def _drop(self, name: str) -> None:
        self.bytes -= len(self._images.pop(name)[0].data)
