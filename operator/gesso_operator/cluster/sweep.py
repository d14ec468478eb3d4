"""What the watches missed: objects that went while the API server did not tell.

A watch that cannot go on where it stopped (its version is too old: 410) lists anew, and what a list does not
hold any more goes without a word. So what exists is asked for: soon after such a list, and now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from gesso_operator.cluster.api import PLURALS, Api, ApiError
from gesso_operator.cluster.names import API_VERSION, KIND, LABEL_MANAGED_BY, MANAGER
from gesso_operator.cluster.watch import OWNED
from gesso_operator.cluster.world import Thing, World
from gesso_operator.logs import Log

#: Between two sweeps that nothing asks for.
REST_S = 300.0
#: After a list that came anew, and between two looks for one.
SOON_S = 2.0
#: Between two sweeps at least.
LEAST_S = 10.0

_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGER}"
_PLURALS = {"pods", *(plural for _, _, plural in OWNED)}
#: apiVersion, kind and label selector of what is watched.
WATCHED = (
    (API_VERSION, KIND, ""),
    *((v, k, _SELECTOR) for (v, k), plural in PLURALS.items() if plural in _PLURALS),
)


class Sweep:
    """Keeps one world true to what exists."""

    def __init__(
        self,
        api: Api,
        world: World,
        namespaces: Collection[str],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`namespaces` are those that are watched, all where there is none. Only reads from `api`."""
        self._api, self._world, self._log, self._clock = api, world, log, clock
        self._namespaces = tuple(namespaces) or ("",)

    async def run(self) -> None:
        """Sweeps until cancelled."""
        swept_s, seen = self._clock(), self._world.relisted
        while True:
            await asyncio.sleep(SOON_S)
            since = self._clock() - swept_s
            if since < (LEAST_S if self._world.relisted != seen else REST_S):
                continue
            swept_s, seen = self._clock(), self._world.relisted
            try:
                await self.once()
            except ApiError as error:
                # The API server is away; the next sweep is not far.
                self._log.warning("not_swept", detail=str(error))

    async def once(self) -> list[Thing]:
        """Has the world forget what is not there any more, and gives it. Raises ApiError."""
        # What comes after this moment may be missing in a list that was made before it.
        known = self._world.known()
        there: set[Thing] = set()
        for api_version, kind, selector in WATCHED:
            for namespace in self._namespaces:
                keys = await self._api.names(api_version, kind, namespace, selector)
                there |= {(kind, key) for key in keys}
        found = missing(known, there, self._world.known())
        for thing in found:
            self._world.gone(thing)
        if found:
            told = ", ".join(f"{kind} {key}" for kind, key in found[:10])
            self._log.info("missed_deletions", objects=len(found), detail=told)
        return found


def missing(
    before: Mapping[Thing, str], there: Collection[Thing], now: Mapping[Thing, str]
) -> list[Thing]:
    """What was known before a look at what is `there`, is not, and has not come anew since.

    `before` and `now` are what is known, with what tells objects of one name apart.
    """
    return [
        thing for thing, mark in before.items() if thing not in there and now.get(thing) == mark
    ]
