"""One service from its object to its pods, plan and status, again and again; level-triggered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gesso.api import (
    ConditionType,
    DiffusionService,
    ServiceStatus,
    SpecError,
    service_of,
    transition,
)
from gesso.tls import Tls, TlsError
from gesso_operator.clients import Clients
from gesso_operator.cluster import names
from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.applied import Applied
from gesso_operator.cluster.events import EventSink
from gesso_operator.cluster.fleet import PodFleet, owned_of
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.objects import Defaults, desired
from gesso_operator.cluster.objects.desired import unwanted
from gesso_operator.cluster.status_writer import StatusWriter, status_of
from gesso_operator.cluster.world import World
from gesso_operator.logs import Log
from gesso_operator.loop import ControlLoop
from gesso_operator.status import Refusal

#: Changes come in swarms, as pods do: what comes within this is one.
GATHER_S = 0.1
#: After so long everything is applied again, whether a change was seen or not.
RESYNC_S = 300.0
#: After an error of the API server, doubled up to the most.
RETRY_S, MOST_RETRY_S = 1.0, 15.0
#: The most where only the API server's next look at its kinds is waited for.
SOON_S = 2.0


@dataclass(frozen=True)
class Tools:
    """What all services share."""

    api: Api
    world: World
    clients: Callable[[Tls | None], Clients]
    writer: StatusWriter
    events: EventSink
    defaults: Defaults
    log: Log
    leads: Callable[[], bool]
    planner: Executor
    #: Of the operator's own certificate, for services with TLS.
    tls_folder: Path | None = None


class Runner:
    """One service's loop."""

    def __init__(
        self,
        key: Key,
        tools: Tools,
        on_decision: Callable[[Key, str, bool], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing yet. `on_decision` is called with the reason of each, and whether a plan was made."""
        self.key = key
        self._on_decision = on_decision
        self._tools, self._clock = tools, clock
        self._applied = Applied(tools.api, tools.world)
        self._clients = tools.clients(None)
        self._wake, self._look = asyncio.Event(), True
        self._fleet: PodFleet | None = None
        self._control: ControlLoop | None = None
        self._service: DiffusionService | None = None
        self._trouble = ""
        self._resynced_s = clock()
        self._ended = asyncio.Event()
        self.rounds, self.round_seconds = 0, 0.0
        self.beat_s = clock()

    def wake(self, look: bool = True) -> None:
        """Asks for a round now; without `look` only objects are put right, and plans keep to their time."""
        self._look = self._look or look
        self._wake.set()

    def stop(self) -> None:
        """Asks the loop to end."""
        self._ended.set()
        self._wake.set()

    @property
    def control(self) -> ControlLoop | None:
        """The control loop, once there is one."""
        return self._control

    async def run(self) -> None:
        """Rounds at the plan interval and when woken, until stopped."""
        failures, next_look_s = 0, self._clock()
        try:
            while not self._ended.is_set():
                began = self._clock()
                self._wake.clear()
                if not self._tools.leads():
                    # Another may act meanwhile: what was applied is not known any more.
                    self._forget()
                    await self._pause(1.0)
                    continue
                looks = self._look or began >= next_look_s
                try:
                    self._look = False
                    await self.round(looks)
                    if looks:
                        self.rounds += 1
                        self.round_seconds += self._clock() - began
                        next_look_s = began + self.interval_s
                    failures, self._trouble = 0, ""
                except ApiError as error:
                    failures += 1
                    next_look_s = began + retry_s(failures, error)
                    if str(error) != self._trouble:
                        self._trouble = str(error)
                        self._tools.log.warning(
                            "not_reconciled", service=str(self.key), detail=self._trouble
                        )
                    await self._tell_trouble(error)
                self.beat_s = self._clock()
                await self._pause(max(0.0, next_look_s - self._clock()))
        finally:
            if self._fleet is not None:
                self._fleet.stop()
            await self._clients.close()

    async def round(self, looks: bool = True) -> None:
        """Objects first, then, if it `looks`, a tick of the control loop. Raises ApiError."""
        body = self._tools.world.services.get(self.key)
        if body is None or (body.get("metadata") or {}).get("deletionTimestamp"):
            return
        service = await self._read(body)
        if service is None:
            return
        control, fleet = self._control, self._fleet
        assert control is not None
        assert fleet is not None
        fleet.resize()
        await self._objects(fleet)
        if looks and self._tools.leads():
            await control.tick()
            if control.decision is not None:
                reason = control.decision.reason.value
                self._on_decision(self.key, reason, control.decision.changed)
            if fleet.resize():
                await self._objects(fleet)
        if fleet.size.leaving_since_s is not None:
            # Workers that leave are let go a little later.
            asyncio.get_running_loop().call_later(1.0, self.wake, False)

    async def _read(self, body: object) -> DiffusionService | None:
        """Takes up the spec; None while there has never been one that can be accepted."""
        assert isinstance(body, dict)
        try:
            service = service_of(body)
        except SpecError as error:
            reason, told = "SpecInvalid", str(error).splitlines()[0]
            if self._control is None:
                await self._conditions(status_of(body), body, reason, told, ("Accepted", "Ready"))
            else:
                # What was asked for before goes on; its status tells of the refusal.
                self._control.refusal = Refusal(_generation(body), reason, told)
            return self._service
        if self._control is not None:
            self._control.refusal = None
        if service == self._service:
            return service
        owned = owned_of(service, body)
        self._clients.tls = self._tls(service)
        if self._fleet is None:
            found = await self._tools.api.get(
                "apps/v1", "StatefulSet", self.key.namespace, names.worker(self.key.name)
            )
            before = None if found is None else int((found.get("spec") or {}).get("replicas") or 0)
            self._fleet = PodFleet(
                owned,
                before,
                lambda: self._tools.clients(self._clients.tls),
                self._applied,
                self._tools.api,
                self._tools.world,
                self._tools.writer,
                self._tools.events,
                self._tools.log,
            )
            self._control = ControlLoop(
                service,
                self._fleet,
                self._fleet,
                self._clients,
                self._tools.log,
                elastic=True,
                status=status_of(body),
                planner=self._tools.planner,
            )
        else:
            self._fleet.owned = owned
            assert self._control is not None
            self._control.update(service)
        self._service = service
        return service

    def _tls(self, service: DiffusionService) -> Tls | None:
        """What the service is talked to with: without usable files nothing, and its parts do not answer."""
        wanted, folder = service.spec.security.tls, self._tools.tls_folder
        if wanted is None:
            return None
        if folder is None:
            self._tools.log.error("no_tls", service=str(self.key), detail="--tls-dir is not given")
            return None
        try:
            return Tls.wanted_by(wanted, folder)
        except TlsError as error:
            self._tools.log.error("no_tls", service=str(self.key), detail=str(error))
            return None

    async def _objects(self, fleet: PodFleet) -> None:
        """Applies what is not as it should be. Raises ApiError."""
        now = self._clock()
        if now - self._resynced_s > RESYNC_S:
            self._resynced_s = now
            self._applied.forget()
            self._tools.writer.forget(self.key)
        objects = desired(fleet.owned, self._tools.defaults, fleet.size.pods)
        changed = await self._applied.apply(objects)
        if changed:
            for version, kind, name in unwanted(fleet.owned):
                await self._tools.api.delete(version, kind, self.key.namespace, name)
            self._tools.log.info("applied", service=str(self.key), objects=changed)

    async def _tell_trouble(self, error: ApiError) -> None:
        """Says in the status what the API server refuses, where it can be said."""
        body = self._tools.world.services.get(self.key)
        if body is None or error.status == 0:
            return
        reason, message = told_of(error)
        before = self._control.status if self._control is not None else status_of(body)
        await self._conditions(before, dict(body), reason, message, ("Ready",))

    async def _conditions(
        self,
        before: ServiceStatus,
        body: dict[str, object],
        reason: str,
        message: str,
        false: tuple[ConditionType, ...],
    ) -> None:
        generation, now = _generation(body), datetime.now(UTC)
        kept = [c for c in before.conditions if c.type not in false]
        told = [
            transition(before.conditions, kind, "False", reason, message, now, generation)
            for kind in false
        ]
        status = before.model_copy(
            update={"conditions": (*kept, *told), "observed_generation": generation}
        )
        await self._tools.writer.write(self.key, status)

    @property
    def interval_s(self) -> float:
        """Seconds between two rounds that nothing asks for."""
        if self._service is None:
            return RESYNC_S
        return self._service.spec.scheduling.plan_interval_seconds

    def _forget(self) -> None:
        self._applied.forget()
        self._tools.writer.forget(self.key)
        self.beat_s = self._clock()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(GATHER_S, seconds))
            await asyncio.sleep(GATHER_S)


def retry_s(failures: int, error: ApiError) -> float:
    """Seconds until the next try, after so many failures in a row (1 or more)."""
    most = SOON_S if error.owner_unknown else MOST_RETRY_S
    return min(most, RETRY_S * 2.0 ** (failures - 1))


def told_of(error: ApiError) -> tuple[str, str]:
    """A condition's reason and message of what the API server refused."""
    if error.owner_unknown:
        return "KindNotKnownYet", (
            "the API server has yet to learn of the kind DiffusionService: it looks for new kinds every 30 s; "
            "tried again until then"
        )
    reasons = {403: "Forbidden", 409: "Conflict", 422: "Invalid"}
    return reasons.get(error.status, "ApiError"), error.message


def _generation(body: dict[str, object]) -> int:
    meta = body["metadata"]
    assert isinstance(meta, dict)
    return int(meta.get("generation") or 1)
