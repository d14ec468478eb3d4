"""The queue's tenants as they come and go; who may come in is `limits`' to say."""

from __future__ import annotations

from dataclasses import replace

from gesso_router.access.limits import REMEMBERED_S, Standing, bearable, has_share


class Sharing:
    """Of one router. Owners come from the file of keys, so there are few; the empty one is everybody."""

    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}
        self._shed_open = 0
        self._shed_s: float | None = None

    def enter(self, owner: str, most: int, now_s: float) -> bool:
        """A request came in: whether there is room for it beside the others'. It counts until it `leaves`."""
        room = bearable(most, self._shed_open, self._shed_s, now_s)
        allowed = len(self.standings) < 2 and owner in self.standings
        allowed = allowed or has_share(owner, self.standings, room, now_s)
        before = self.standings.get(owner, Standing())
        after = replace(before, open=before.open + 1, seen_s=now_s)
        old = now_s - before.peak_s >= REMEMBERED_S
        if old or after.open >= before.peak:
            after = replace(after, peak=after.open, peak_s=now_s)
        self.standings[owner] = after
        return allowed

    def leave(self, owner: str, now_s: float) -> None:
        """A request has ended, whatever became of it."""
        before = self.standings[owner]
        self.standings[owner] = replace(before, open=before.open - 1)
        for name, standing in list(self.standings.items()):
            if not standing.open and now_s - standing.seen_s >= REMEMBERED_S:
                del self.standings[name]

    def overloaded(self, open_requests: int, now_s: float) -> None:
        """With so many open, a usual deadline could not be made."""
        self._shed_open, self._shed_s = open_requests, now_s
