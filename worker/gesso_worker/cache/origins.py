"""Which requests may have left latents: not those that were withdrawn; who left some lately may fail yet."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

#: Requests that are remembered, of either kind; latents of earlier ones are not under way any more.
REMEMBERED: Final = 4096


class Origins:
    """A request is named as its origin is, or as that before its last dot. The caller holds a lock."""

    def __init__(self) -> None:
        self._withdrawn: OrderedDict[str, None] = OrderedDict()
        self._latest: OrderedDict[str, None] = OrderedDict()

    def withdraw(self, request: str) -> None:
        """From now on refuses what a request left."""
        self._withdrawn[request] = None
        if len(self._withdrawn) > REMEMBERED:
            self._withdrawn.popitem(last=False)

    def refused(self, origin: str) -> bool:
        """Whether latents of this origin may not be held."""
        return origin in self._withdrawn or origin.rpartition(".")[0] in self._withdrawn

    def left(self, origin: str) -> None:
        """A request has left latents."""
        if origin:
            self._latest[origin] = None
            if len(self._latest) > REMEMBERED:
                self._latest.popitem(last=False)

    def retract(self, origin: str) -> bool:
        """Whether a request has left latents, lately; not any more."""
        return self._latest.pop(origin, 0) is None


def means(request: str, origin: str) -> bool:
    """Whether an origin is that of a request."""
    return request in (origin, origin.rpartition(".")[0])
