"""Holds the Lease: takes it, renews it, and lets it go; see `lease` for the rules."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gesso_operator.cluster.api import Api, ApiError, Object
from gesso_operator.cluster.lease import DURATION_S, RENEW_S, Seen, Step, Watch, holds, step
from gesso_operator.cluster.names import Key
from gesso_operator.logs import Log

_VERSION, _KIND = "coordination.k8s.io/v1", "Lease"


class Leadership:
    """One candidate. `held` is to be asked before each act."""

    def __init__(
        self,
        api: Api,
        key: Key,
        pod: str,
        log: Log,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pod` names the candidate; `on_change` is called when it begins or ceases to lead."""
        self._api, self._key, self._log, self._clock = api, key, log, clock
        # Two processes of one name, as after a restart of the container, are two candidates.
        self.me = f"{pod}_{uuid.uuid4().hex[:8]}"
        self.holder = ""
        self._on_change = on_change
        self._watch = Watch()
        self._renewed_s: float | None = None
        self._led = False

    @property
    def held(self) -> bool:
        """Whether this candidate may act now."""
        return holds(self._renewed_s, self._clock())

    async def run(self, stop: asyncio.Event) -> None:
        """Tries and renews until told to stop, then lets go."""
        while not stop.is_set():
            await self._round()
            if self.held != self._led:
                self._led = self.held
                self._log.info("leading" if self._led else "not_leading", holder=self.holder)
                self._on_change()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RENEW_S if self._led else RENEW_S / 2)
        if self.held:
            await self.release()

    async def release(self) -> None:
        """Lets go, so that the next one need not wait."""
        self._renewed_s = None
        try:
            found = await self._read()
            if found is not None and _seen(found).holder == self.me:
                found["spec"]["holderIdentity"] = ""
                await self._api.replace(found)
        except ApiError as error:
            self._log.warning("lease_not_released", detail=str(error))

    async def _round(self) -> None:
        began = self._clock()
        try:
            found = await self._read()
            seen = _seen(found) if found is not None else None
            if seen is not None:
                self.holder = seen.holder
                self._watch = self._watch.at(seen, began)
            what = step(self.me, seen, self._watch, began)
            if what is Step.WAIT:
                self._renewed_s = None
                return
            if what is Step.CREATE:
                await self._api.create(self._body(None, True))
            else:
                await self._api.replace(self._body(found, what is Step.TAKE))
        except ApiError as error:
            # Somebody else was faster, or the API server is away: what is held is held until it runs out.
            if error.status == 409:
                self._renewed_s = None
            else:
                self._log.warning("lease_not_renewed", detail=str(error))
            return
        self.holder = self.me
        # From before the request: the server may have counted from then on.
        self._renewed_s = began

    async def _read(self) -> Object | None:
        return await self._api.get(_VERSION, _KIND, self._key.namespace, self._key.name)

    def _body(self, found: Object | None, taken: bool) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        body: dict[str, Any] = found or {
            "apiVersion": _VERSION,
            "kind": _KIND,
            "metadata": {"namespace": self._key.namespace, "name": self._key.name},
            "spec": {},
        }
        spec = body.setdefault("spec", {})
        spec["holderIdentity"] = self.me
        spec["leaseDurationSeconds"] = int(DURATION_S)
        spec["renewTime"] = now
        if taken:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + int(
                found is not None
            )
        return body


def _seen(found: Object) -> Seen:
    spec = found.get("spec") or {}
    mark = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
    duration = float(spec.get("leaseDurationSeconds") or DURATION_S)
    return Seen(str(spec.get("holderIdentity") or ""), mark, duration)
