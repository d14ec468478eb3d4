"""One service's pods as the fleet of its control loop, and what follows from its decisions in the cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from gesso.api import DiffusionService, ServiceStatus
from gesso.rpc.v1 import router_pb2
from gesso_operator.clients import Clients, Failure
from gesso_operator.cluster import names
from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.applied import Applied
from gesso_operator.cluster.events import EventSink
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.objects.common import Owned
from gesso_operator.cluster.objects.config import plan_config
from gesso_operator.cluster.records import PodRecord
from gesso_operator.cluster.sizing import HAND_OVER_S, Size, resized, wanted
from gesso_operator.cluster.status_writer import StatusWriter
from gesso_operator.cluster.world import World
from gesso_operator.fleet import Member
from gesso_operator.logs import Log
from gesso_operator.planning import Decision
from gesso_operator.wire import plan_json

#: What is left of the time in which a worker may hand over goes to calls that fail late.
_HANDING_S = HAND_OVER_S - 10.0


class PodFleet:
    """Implements the seams of `gesso_operator.fleet` with pods; `owned` is replaced when the spec changes."""

    def __init__(
        self,
        owned: Owned,
        pods_before: int | None,
        clients: Callable[[], Clients],
        applied: Applied,
        api: Api,
        world: World,
        writer: StatusWriter,
        events: EventSink,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pods_before` is what the StatefulSet asks for already; None where there is none."""
        self.owned = owned
        self._clients, self._applied, self._api, self._world = clients, applied, api, world
        self._writer, self._events, self._log, self._clock = writer, events, log, clock
        self._handing: asyncio.Task[None] | None = None
        self._planned: int | None = None
        first = wanted(owned.service.spec.workers, None, pods_before)
        self.size = Size(first if pods_before is None else max(first, pods_before), first)

    @property
    def key(self) -> Key:
        """The service."""
        return Key(self.owned.namespace, self.owned.name)

    def resize(self) -> bool:
        """Follows spec and plan; whether the number of pods, or of those that stay, is another now."""
        before = self.size
        workers = self.owned.service.spec.workers
        target = wanted(workers, self._planned, before.target)
        handed_over = self._handing is None or self._handing.done()
        self.size = resized(before, target, self._clock(), handed_over)
        if self.size.leaving_since_s is None:
            self.stop()
        elif self.size.leaving_since_s != before.leaving_since_s:
            self.stop()
            self._handing = asyncio.create_task(self._hand_over(), name=f"hand over {self.key}")
        if self.size.target != before.target:
            self._log.info(
                "resize", service=str(self.key), workers=before.target, to=self.size.target
            )
        return self.size != before

    def stop(self) -> None:
        """Gives up what is being handed over."""
        if self._handing is not None:
            self._handing.cancel()
            self._handing = None

    async def _hand_over(self) -> None:
        """Has the workers that leave give their shards' best entries to those that stay."""
        serving = [
            p
            for p in self._world.pods(self.key, names.WORKER)
            if p.ready and p.ip and not p.deleting
        ]
        address = {p.name: f"{p.ip}:{names.WORKER_PORT}" for p in serving}
        stays = {p.name: address[p.name] for p in serving if self.size.stays(names.ordinal(p.name))}
        leaves = [p.name for p in serving if self.size.leaves(names.ordinal(p.name))]
        if not stays:
            return
        # Of their own: the loop closes its channels to workers that are no members any more.
        clients = self._clients()
        try:
            replies = await asyncio.gather(
                *(clients.hand_over(address[n], stays, _HANDING_S) for n in leaves)
            )
        finally:
            await clients.close()
        for name, reply in zip(leaves, replies, strict=True):
            failed = str(reply) if isinstance(reply, Failure) else ""
            entries = 0 if isinstance(reply, Failure) else reply.entries
            self._log.info("handed_over", worker=name, entries=entries, detail=failed)

    def routers(self) -> Mapping[str, str]:
        """Routers that are ready, by the pod's name."""
        guarded = self.owned.service.spec.security.on
        port = names.CONTROL_PORT if guarded else names.GRPC_PORT
        return {
            p.name: f"{p.ip}:{port}"
            for p in self._world.pods(self.key, names.ROUTER)
            if p.ready and p.ip and not p.deleting
        }

    def absent_routers(self) -> tuple[str, ...]:
        """Routers' pods that are not ready."""
        return tuple(
            f"{p.name}: {p.message or 'not ready'}"
            for p in self._world.pods(self.key, names.ROUTER)
            if not p.ready and not p.deleting
        )

    def members(self) -> tuple[Member, ...]:
        """Workers that should serve: those that leave are none, those whose pod is yet to come are."""
        pods = {
            names.ordinal(p.name): p
            for p in self._world.pods(self.key, names.WORKER)
            if not p.deleting
        }
        found = []
        for number in range(self.size.target):
            pod = pods.get(number)
            name = f"{names.worker(self.owned.name)}-{number}"
            if pod is None:
                found.append(Member(name, "", False, starting=True))
                continue
            told = f"{name}: {pod.message}" if pod.message else ""
            found.append(
                Member(
                    name,
                    f"{pod.ip}:{names.WORKER_PORT}" if pod.ip else "",
                    pod.ready and bool(pod.ip),
                    pod.restarts,
                    told,
                    pod.reason,
                    starting=not pod.ready and not pod.stuck,
                    instance=pod.uid,
                    start_seconds=_start_seconds(pod),
                )
            )
        return tuple(sorted(found, key=lambda m: m.name))

    async def decided(self, decision: Decision, plan: router_pb2.ApplyPlanRequest | None) -> None:
        """Keeps the plan, labels the pods with their level and model, and notes the size that is asked for."""
        resizes = decision.fleet_size not in (None, self.size.target)
        self._planned = decision.fleet_size
        try:
            if plan is not None:
                await self._applied.apply([plan_config(self.owned, plan_json(plan))])
                await self._label(decision)
        except ApiError as error:
            self._log.warning("plan_not_kept", service=str(self.key), detail=str(error))
        await self._events.decided(self.owned, decision, resizes)

    async def write(self, status: ServiceStatus) -> None:
        """Hands the status to the writer, with what only the cluster knows."""
        selector = ",".join(
            f"{k}={v}" for k, v in names.selector(self.owned.name, names.WORKER).items()
        )
        pods = self._world.pods(self.key, names.WORKER)
        update = {"replicas": len(pods), "selector": selector}
        await self._writer.write(self.key, status.model_copy(update=update))

    async def _label(self, decision: Decision) -> None:
        for pod in self._world.pods(self.key, names.WORKER):
            level = decision.assignment.get(pod.name)
            if level is None or pod.deleting:
                continue
            model = decision.models.get(pod.name, "")
            if (pod.level, pod.model) == (str(level), model):
                continue
            # A null takes a label away.
            labels = {names.LABEL_LEVEL: str(level), names.LABEL_MODEL: model or None}
            body = {"metadata": {"labels": labels}}
            await self._api.patch("v1", "Pod", self.owned.namespace, pod.name, body)


def _start_seconds(pod: PodRecord) -> float | None:
    """From a pod's creation until it was found ready."""
    if not (pod.ready and pod.created and pod.ready_since):
        return None
    took = datetime.fromisoformat(pod.ready_since) - datetime.fromisoformat(pod.created)
    return took.total_seconds()


def owned_of(service: DiffusionService, body: Mapping[str, object]) -> Owned:
    """The service as the owner of its objects."""
    meta = body["metadata"]
    assert isinstance(meta, Mapping)
    return Owned(service, str(meta["namespace"]), str(meta["uid"]))
