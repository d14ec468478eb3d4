"""Which shards a look-up asks: all of a small fleet, else those that answer for the prompt's cells.

A worker that has not been told the placement yet, or has much to tell others, is always asked: what it holds is
known to nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gesso.builtin import builtin_path, is_builtin
from gesso.codebook import FILE_NAME, read_codebook
from gesso.placement import PLACED_FROM, Codebook, Placement
from gesso_router.fleet import Endpoint
from gesso_router.routing.quality import Vector

#: Entries that a worker may have yet to tell others of; what was kept in the last moments is.
MOST_UNANNOUNCED = 64


class Probes:
    """Of one fleet. No I/O and no clock."""

    def __init__(self) -> None:
        """Asks everybody, until there is a codebook."""
        self.codebook: Codebook | None = None
        self.placement: Placement | None = None
        self._workers: tuple[str, ...] = ()
        self._told: dict[str, tuple[str, int]] = {}

    def learn(self, codebook: Codebook) -> None:
        """Takes a codebook for the prompts' embeddings."""
        self.codebook = codebook
        self._place()

    def apply(self, workers: Iterable[str]) -> None:
        """Takes the workers of a plan."""
        names = tuple(sorted(workers))
        if names != self._workers:
            self._workers = names
            self._told = {n: t for n, t in self._told.items() if n in names}
            self._place()

    def reported(self, worker: str, placement: str, unannounced: int) -> None:
        """A worker told which placement it goes by, and how much it has yet to tell others."""
        self._told[worker] = (placement, unannounced)

    def behind(self, worker: str) -> bool:
        """Whether a worker that reported goes by another placement than the one in force."""
        told = self._told.get(worker)
        return self.placement is not None and told is not None and told[0] != self.placement.version

    def asked(self, embedding: Vector, reachable: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """The workers that a look-up for an embedding (d,) asks, of those that can be reached."""
        placement = self.placement
        if placement is None or embedding.shape != (placement.codebook.dimensions,):
            return reachable
        names = {e.name for e in reachable}
        nearest = placement.nearest(embedding, len(placement.workers))
        chosen = set([n for n in nearest if n in names][: placement.probes])
        return [e for e in reachable if e.name in chosen or not self._settled(e.name)]

    def _settled(self, worker: str) -> bool:
        placement, unannounced = self._told.get(worker, ("", 0))
        assert self.placement is not None
        return placement == self.placement.version and unannounced <= MOST_UNANNOUNCED

    def _place(self) -> None:
        self.placement = None
        if self.codebook is not None and len(self._workers) >= PLACED_FROM:
            self.placement = Placement.of(self.codebook, self._workers)


def find_codebook(embedding: str) -> Codebook | None:
    """The codebook that lies beside an embedding model; None where there is none.

    Raises CodebookError, OSError.
    """
    folder = builtin_path(embedding) if is_builtin(embedding) else Path(embedding)
    path = folder / FILE_NAME
    return read_codebook(path) if path.is_file() else None
