"""Tells other workers what this one holds of the cells that they answer for, in the background, within a rate.

What was told is remembered by entry, so that after a worker joined or left only its share is told anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from gesso.placement import Placement
from gesso_worker.cache.peers import PeerError, Peers, pack_post
from gesso_worker.cache.records import Post
from gesso_worker.cache.shard import Shard
from gesso_worker.cache.signposts import Signposts, targets

logger = logging.getLogger(__name__)

#: Entries in one message.
BATCH_ENTRIES: Final = 128
#: What it sends a second at most, of all targets together.
BYTES_PER_SECOND: Final = 4 << 20
#: Between two looks for changes.
PAUSE_S: Final = 0.1
#: A target is asked so often whether it still remembers.
HEARTBEAT_S: Final = 2.0
#: A target that takes longer, or refuses, is tried again after `RETRY_S`.
MESSAGE_S: Final = 2.0
RETRY_S: Final = 1.0
_POST_BYTES: Final = 128


class Announcer:
    """Of one worker; lives on its event loop. Idle until it is told a placement."""

    def __init__(
        self,
        name: str,
        shard: Shard,
        signposts: Signposts,
        fingerprint: str,
        peers: Peers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is this worker's, `signposts` what it knows of others."""
        self.placement: Placement | None = None
        self._name = name
        self._shard = shard
        self._signposts = signposts
        self._fingerprint = fingerprint
        self._peers = peers
        self._clock = clock
        self._addresses: Mapping[str, str] = {}
        #: Levels and targets as they were told, by entry.
        self._told: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
        #: Entries yet to be told, by target.
        self._todo: dict[str, dict[str, None]] = {}
        self._under_way = 0
        self._lives: dict[str, str] = {}
        self._retry_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def place(self, placement: Placement, addresses: Mapping[str, str]) -> None:
        """From now on tells by this placement; `addresses` of its workers. The same again changes nothing."""
        self._addresses = addresses
        if self.placement is not None and self.placement.version == placement.version:
            return
        self.placement = placement
        for gone in set(self._todo) - set(placement.workers):
            del self._todo[gone]
        self._lives = {n: life for n, life in self._lives.items() if n in placement.workers}
        self._retry_s.clear()
        self._shard.watch()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="announce")

    @property
    def unannounced(self) -> int:
        """Entries that somebody who answers for them does not know as they are."""
        return self._shard.ungiven + self._under_way + sum(map(len, self._todo.values()))

    async def close(self) -> None:
        """Tells nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2.0)

    async def _run(self) -> None:
        pruned = None
        while True:
            placement = self.placement
            assert placement is not None
            if placement is not pruned:
                await asyncio.to_thread(self._signposts.prune, placement, self._name)
                pruned = placement
            try:
                sent = await self.step()
            except Exception:
                logger.exception("announcing failed")
                sent = 0
            await asyncio.sleep(max(PAUSE_S if not sent else 0.0, sent / BYTES_PER_SECOND))

    async def step(self) -> int:
        """Looks for changes and sends each target a message, if there is one for it; bytes that were sent."""
        placement, now = self.placement, self._clock()
        if placement is None:
            return 0
        changes = self._shard.changes(BATCH_ENTRIES)
        if changes:
            # In a thread: a product with every centroid for each.
            self._under_way += len(changes)
            try:
                found = await asyncio.to_thread(self._sorted, placement, changes)
                for entry_id, post, wanted in found:
                    self._note(placement, entry_id, post, wanted)
            finally:
                self._under_way -= len(changes)
        due = [
            name
            for name in placement.workers
            if name != self._name
            and name in self._addresses
            and now >= self._retry_s.get(name, 0.0)
            and (self._todo.get(name) or now >= self._asked_s.get(name, 0.0) + HEARTBEAT_S)
        ]
        return sum(await asyncio.gather(*(self._send(placement, name) for name in due)))

    def _sorted(
        self, placement: Placement, changes: list[str]
    ) -> list[tuple[str, Post | None, tuple[str, ...]]]:
        """Entries as they are now, None for one that is gone, and who is to be told of them."""
        posts = [(entry_id, self._shard.post(entry_id, self._fingerprint)) for entry_id in changes]
        return [
            (i, post, () if post is None else targets(placement, self._name, post.embedding))
            for i, post in posts
        ]

    def _note(
        self, placement: Placement, entry_id: str, post: Post | None, wanted: tuple[str, ...]
    ) -> None:
        levels, known = self._told.get(entry_id, ((), ()))
        if post is None:
            self._told.pop(entry_id, None)
        else:
            self._told[entry_id] = (post.held_levels, wanted)
        changed = post is None or post.held_levels != levels
        # Who is no target any more forgets by itself, unless the entry is gone under the same placement.
        for name in known if post is None else wanted:
            if name in placement.workers and (changed or name not in known):
                self._todo.setdefault(name, {})[entry_id] = None

    async def _send(self, placement: Placement, name: str) -> int:
        todo = self._todo.setdefault(name, {})
        batch = [entry_id for entry_id, _ in zip(todo, range(BATCH_ENTRIES), strict=False)]
        for entry_id in batch:
            del todo[entry_id]
        posts = [pack_post(i, self._shard.post(i, self._fingerprint)) for i in batch]
        self._asked_s[name] = self._clock()
        self._under_way += len(batch)
        life = ""
        try:
            life = await self._peers.announce(
                self._addresses[name],
                self._name,
                self._fingerprint,
                placement.version,
                posts,
                MESSAGE_S,
            )
        except PeerError as error:
            logger.debug("%s", error)
            return 0
        finally:
            self._under_way -= len(batch)
            if not life:
                self._todo.setdefault(name, {}).update(dict.fromkeys(batch))
                self._retry_s[name] = self._clock() + RETRY_S
        if self._lives.setdefault(name, life) != life:
            self._lives[name] = life
            self._forgotten(name)
        return sum(p.ByteSize() for p in posts) + _POST_BYTES

    def _forgotten(self, name: str) -> None:
        """A target began anew: it is told everything again."""
        for entry_id, (_, known) in self._told.items():
            if name in known:
                self._todo.setdefault(name, {})[entry_id] = None
