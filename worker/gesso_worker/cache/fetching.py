"""Fetches from a shard on an event loop: at once what is in memory, in a thread what is on disk."""

from __future__ import annotations

import asyncio

from gesso_worker.cache.records import HeldLatents
from gesso_worker.cache.shard import Shard


async def fetch(
    shard: Shard, tenant: str, entry_id: str, wanted: int, fingerprint: str | None = None
) -> HeldLatents | None:
    """As `Shard.fetch`, which it calls."""
    held = shard.fetch(tenant, entry_id, wanted, fingerprint, wait=False)
    if held is None and shard.on_disk:
        held = await asyncio.to_thread(shard.fetch, tenant, entry_id, wanted, fingerprint)
    return held
