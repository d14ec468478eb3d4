"""Applies objects, but only those that are not as they should be already."""

from __future__ import annotations

from collections.abc import Sequence

from gesso_operator.cluster.api import Api, Object
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.objects.common import digest
from gesso_operator.cluster.records import mark
from gesso_operator.cluster.world import World

#: Kinds that are watched: what others do to them is seen. The others are applied again now and then.
WATCHED = frozenset({"ConfigMap", "Service", "StatefulSet", "Deployment"})


class Applied:
    """What one service's objects were when they were last applied."""

    def __init__(self, api: Api, world: World) -> None:
        """Nothing applied yet."""
        self._api, self._world = api, world
        self._known: dict[tuple[str, Key], tuple[str, str]] = {}

    def forget(self) -> None:
        """Has all objects applied again at the next call."""
        self._known.clear()

    async def apply(self, objects: Sequence[Object]) -> int:
        """Applies what is not as last applied, here or in the cluster; gives their number. Raises ApiError."""
        count = 0
        for body in objects:
            meta = body["metadata"]
            key = (body["kind"], Key(meta["namespace"], meta["name"]))
            wanted = digest(body)
            known = self._known.get(key)
            if known is not None and known[0] == wanted and not self._moved(key, known[1]):
                continue
            found = await self._api.apply(body)
            self._known[key] = (wanted, mark(found))
            count += 1
        return count

    def _moved(self, key: tuple[str, Key], applied: str) -> bool:
        """Whether somebody else changed or removed it since."""
        if key[0] not in WATCHED:
            return False
        seen = self._world.mark_of(*key)
        # The watch may be behind the answer to our own request: older marks of the same object are no news.
        return seen is None or _newer(seen, applied)


def _newer(seen: str, applied: str) -> bool:
    seen_uid, _, seen_at = seen.partition(" ")
    uid, _, at = applied.partition(" ")
    if seen_uid != uid:
        return True
    if seen_at.isdigit() and at.isdigit():
        return int(seen_at) > int(at)
    return seen_at != at
