"""Finds where a run may start: at a peer, in this worker's own shard, or at step 0."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import numpy as np
import torch

from gesso_worker.cache.fetching import fetch
from gesso_worker.cache.peers import PeerError, Peers
from gesso_worker.cache.records import HeldLatents
from gesso_worker.cache.shard import Shard
from gesso_worker.defaults import FETCH_DEADLINE_S
from gesso_worker.engine import Start
from gesso_worker.requests import GenerateSpec, Source

logger = logging.getLogger(__name__)

#: A latent that the router has not chosen is used in place of a lost one only if its prompt is as similar
#: as NIRVANA asks for its deepest level.
SUBSTITUTE_SIMILARITY: Final = 0.95


class StartFinder:
    """Of one worker; lives on its event loop."""

    def __init__(
        self,
        name: str,
        shard: Shard,
        peers: Peers,
        shape: tuple[int, ...],
        deadline_s: float = FETCH_DEADLINE_S,
    ) -> None:
        """`shape` is (1, C, H, W) of the latents; a peer has `deadline_s` to answer."""
        self._deadline_s = deadline_s
        self._name = name
        self._shard = shard
        self._peers = peers
        self._shape = shape

    async def find(self, spec: GenerateSpec, fingerprint: str, time_left_s: float) -> Start:
        """The start at the largest level at hand of at most the wanted K; K = 0 where there is none.

        Tries the source, then the fallbacks, then what is nearest in this shard. Waits for each peer no longer
        than its deadline, and for all together no longer than `time_left_s`. Never raises.
        """
        if not spec.skipped_steps or spec.source is None:
            return Start()
        began = time.monotonic()
        held = None
        for source in (spec.source, *spec.fallbacks):
            entry_id = source.entry_id
            if not source.address or source.worker == self._name:
                owner = self._name
                held = await self._own(spec, entry_id, fingerprint)
            else:
                owner = source.worker
                left_s = time_left_s - (time.monotonic() - began)
                held = await self._from_peer(spec, source, fingerprint, left_s)
            if held is not None:
                break
        else:
            owner = self._name
            held, entry_id = await self._substitute(spec, fingerprint)
        seconds = time.monotonic() - began
        if held is None or held.latents.shape != self._shape:
            return Start(fetch_seconds=seconds)
        # A copy: torch cannot hold a read-only array.
        latents = torch.from_numpy(np.array(held.latents))
        return Start(held.level, latents, seconds, entry_id, owner)

    async def _from_peer(
        self, spec: GenerateSpec, source: Source, fingerprint: str, time_left_s: float
    ) -> HeldLatents | None:
        try:
            return await self._peers.fetch(
                source.address,
                spec.tenant,
                source.entry_id,
                spec.skipped_steps,
                self._shape,
                fingerprint,
                min(self._deadline_s, max(0.0, time_left_s)),
            )
        except PeerError as error:
            logger.debug("%s", error)
            return None

    async def _substitute(
        self, spec: GenerateSpec, fingerprint: str
    ) -> tuple[HeldLatents | None, str]:
        """The nearest of this shard's own entries and its id, if it is near enough."""
        if spec.embedding is None:
            return None, ""
        try:
            # In a thread: searching a large index takes too long for the event loop.
            nearest = await asyncio.to_thread(
                self._shard.lookup, spec.tenant, fingerprint, spec.embedding, 1
            )
        except ValueError:
            return None, ""
        if not nearest or nearest[0].similarity < SUBSTITUTE_SIMILARITY:
            return None, ""
        entry_id = nearest[0].entry_id
        return await self._own(spec, entry_id, fingerprint), entry_id

    async def _own(self, spec: GenerateSpec, entry_id: str, fingerprint: str) -> HeldLatents | None:
        return await fetch(self._shard, spec.tenant, entry_id, spec.skipped_steps, fingerprint)
