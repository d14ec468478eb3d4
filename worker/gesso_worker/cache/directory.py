"""Entries by prompt: one index a partition, each made anew in the background when it is outgrown."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

import faiss
import numpy as np

from gesso_worker.cache.index import CHUNK, Trained, VectorIndex, train
from gesso_worker.cache.latent_file import Embedding

logger = logging.getLogger(__name__)

#: Tenant and fingerprint.
Partition = tuple[str, str]
#: Between two chunks, so that look-ups get their turn.
_BREATH_S: Final = 0.0005


class Directory:
    """Embeddings by entry. The caller holds `lock` around every call; the thread takes it chunk by chunk."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self._indexes: dict[Partition, VectorIndex] = {}
        self._ids: dict[int, str] = {}
        self._next = 0
        self._training: threading.Thread | None = None
        faiss.omp_set_num_threads(1)

    def add(self, partition: Partition, entry_id: str, embedding: Embedding) -> int:
        """The number that the entry goes by here. Raises ValueError on an embedding of another size."""
        index = self._indexes.get(partition)
        if index is None:
            index = self._indexes[partition] = VectorIndex(embedding.size)
        number = self._next
        index.add(number, embedding)
        self._ids[number] = entry_id
        self._next += 1
        if index.stale and self._training is None:
            self._training = threading.Thread(
                target=self._train, args=(partition, index), name="cache-index", daemon=True
            )
            self._training.start()
        return number

    def remove(self, partition: Partition, number: int) -> None:
        """Forgets an entry that is there."""
        index = self._indexes[partition]
        index.remove(number)
        del self._ids[number]
        if not len(index):
            del self._indexes[partition]

    def nearest(
        self, partition: Partition, embedding: Embedding, limit: int
    ) -> list[tuple[str, int, float]]:
        """Entries with their numbers and similarities, best first. Raises ValueError on another size."""
        index = self._indexes.get(partition)
        if index is None:
            return []
        return [(self._ids[n], n, min(1.0, s)) for n, s in index.search(embedding, limit)]

    def name(self, number: int) -> str:
        """The entry of a number."""
        return self._ids[number]

    def embedding(self, partition: Partition, number: int) -> Embedding:
        """A copy of an entry's embedding."""
        return self._indexes[partition].vector(number)

    def dimensions(self, partition: Partition) -> int:
        """Of the embeddings of a partition that holds any."""
        return self._indexes[partition].size

    def exact(self, partition: Partition) -> bool:
        """Whether a look-up in a partition that holds any entry looks at all of them."""
        return self._indexes[partition].exact

    def settle(self, timeout_s: float) -> bool:
        """Waits for an index that is being made; without the lock. False if that takes longer."""
        thread = self._training
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _train(self, partition: Partition, index: VectorIndex) -> None:
        try:
            again = True
            while again:
                trained = self._trained(index)
                if trained is None:
                    return
                with self.lock:
                    index.begin(trained)
                done = False
                while not done:
                    with self.lock:
                        done = self._indexes.get(partition) is not index or index.copy()
                    time.sleep(_BREATH_S)
                with self.lock:
                    again = self._indexes.get(partition) is index and index.stale
        except Exception:
            # The old index goes on, slower.
            logger.exception("an index was not made")
        finally:
            with self.lock:
                self._training = None

    def _trained(self, index: VectorIndex) -> Trained | None:
        with self.lock:
            numbers, entries = index.sample(), len(index)
        rows = []
        for at in range(0, len(numbers), CHUNK):
            with self.lock:
                rows.append(index.vectors(numbers[at : at + CHUNK]))
        sample = np.concatenate(rows)
        return train(sample, entries) if len(sample) > entries // 16 else None
