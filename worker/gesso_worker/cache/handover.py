"""Gives a shard's best entries to other shards, before its worker goes.

What has saved most steps goes first, the targets in turn, each as far as it has room: nothing that a target
holds is evicted for what comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gesso_worker.cache.peers import PeerError, Peers
from gesso_worker.cache.records import Portable
from gesso_worker.cache.shard import Shard

logger = logging.getLogger(__name__)

#: Latents in one message, and its entries: a target is asked a few times a second, and holds up nothing long.
BATCH_BYTES: Final = 8 << 20
BATCH_ENTRIES: Final = 64
#: A target that takes longer for a message is given up.
MESSAGE_S: Final = 5.0


@dataclass(frozen=True)
class HandedOver:
    """What targets have taken: entries and bytes of them; `skipped` entries are nowhere else."""

    entries: int
    size: int
    skipped: int


def deal(
    entries: deque[Portable], free: dict[str, int], first: int = 0
) -> tuple[dict[str, list[Portable]], int]:
    """The next message for each target, by address, and how many entries no target has room for.

    Takes from the front of `entries` what it deals and what has no room, and what it deals from `free`. The
    targets take turns, beginning with number `first`. Pure but for these two.
    """
    names = list(free)
    names = names[first % len(names) :] + names[: first % len(names)] if names else []
    messages: dict[str, list[Portable]] = {}
    sizes = dict.fromkeys(names, 0)
    turn, skipped = 0, 0
    while entries:
        size = entries[0].size
        roomy = [n for n in names[turn:] + names[:turn] if free[n] >= size]
        if not roomy:
            entries.popleft()
            skipped += 1
            continue
        ready = [
            n for n in roomy if sizes[n] < BATCH_BYTES and len(messages.get(n, ())) < BATCH_ENTRIES
        ]
        if not ready:
            break
        target = ready[0]
        messages.setdefault(target, []).append(entries.popleft())
        sizes[target] += size
        free[target] -= size
        turn = (names.index(target) + 1) % len(names)
    return messages, skipped


async def hand_over(
    shard: Shard,
    fingerprint: str,
    peers: Peers,
    addresses: Sequence[str],
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> HandedOver:
    """Gives the entries under a fingerprint to the workers at `addresses`, for at most `timeout_s`."""
    until = clock() + timeout_s

    def patience() -> float:
        return max(0.001, min(MESSAGE_S, until - clock()))

    rooms = await asyncio.gather(
        *(peers.room(a, fingerprint, patience()) for a in addresses), return_exceptions=True
    )
    free: dict[str, int] = {}
    for address, room in zip(addresses, rooms, strict=True):
        if isinstance(room, int):
            free[address] = room
        elif isinstance(room, PeerError):
            logger.warning("no hand-over: %s", room)
        else:
            raise room
    ranked = deque(shard.ranked(fingerprint))
    left: deque[Portable] = deque()
    taken, size, skipped, rounds = 0, 0, 0, 0
    while free and clock() < until:
        # Not all at once: those on disk may be more than memory holds.
        want = BATCH_ENTRIES * len(free) - len(left)
        left.extend(await asyncio.to_thread(_next, shard, ranked, want))
        if not left:
            break
        messages, without_room = deal(left, free, rounds)
        skipped += without_room
        rounds += 1
        answers = await asyncio.gather(
            *(peers.store(a, fingerprint, batch, patience()) for a, batch in messages.items()),
            return_exceptions=True,
        )
        for (address, batch), answer in zip(messages.items(), answers, strict=True):
            stored: Sequence[bool] = ()
            if isinstance(answer, PeerError):
                logger.warning("no hand-over: %s", answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                stored = answer.stored
                free[address] = answer.free_bytes
            if not stored or not all(stored):
                # Gone, or fuller than it said: the others may have room.
                del free[address]
            kept = [e for e, yes in zip(batch, stored or [False] * len(batch), strict=True) if yes]
            taken += len(kept)
            size += sum(a.nbytes for e in kept for a in e.latents.values())
            kept_ids = {id(e) for e in kept}
            left.extendleft(e for e in reversed(batch) if id(e) not in kept_ids)
    return HandedOver(taken, size, skipped + len(left) + len(ranked))


def _next(shard: Shard, ranked: deque[str], most: int) -> list[Portable]:
    """The next entries that are still there; takes them from `ranked`."""
    found: list[Portable] = []
    while ranked and len(found) < most:
        entry = shard.portable(ranked.popleft())
        if entry is not None:
            found.append(entry)
    return found
