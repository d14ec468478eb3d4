"""One service's pods as the fleet of its control loop, and what follows from its decisions in the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from google.protobuf import json_format

from gesso.api import DiffusionService, ServiceStatus
from gesso.rpc.v1 import router_pb2
from gesso_operator.cluster import names
from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.events import EventSink
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.objects.common import Owned
from gesso_operator.cluster.objects.config import plan_config
from gesso_operator.cluster.sizing import Size, resized, wanted
from gesso_operator.cluster.status_writer import StatusWriter
from gesso_operator.cluster.world import World
from gesso_operator.fleet import Member
from gesso_operator.logs import Log
from gesso_operator.planning import Decision


class PodFleet:
    """Implements the seams of `gesso_operator.fleet` with pods; `owned` is replaced when the spec changes."""

    def __init__(
        self,
        owned: Owned,
        pods_before: int | None,
        api: Api,
        world: World,
        writer: StatusWriter,
        events: EventSink,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pods_before` is what the StatefulSet asks for already; None where there is none."""
        self.owned = owned
        self._api, self._world, self._writer, self._events, self._log = (
            *(api, world, writer, events, log),
        )
        self._clock = clock
        self._planned: int | None = None
        first = wanted(owned.service.spec.workers, None, pods_before)
        self.size = Size(first if pods_before is None else max(first, pods_before), first)
        self._plan_json = ""

    @property
    def key(self) -> Key:
        """The service."""
        return Key(self.owned.namespace, self.owned.name)

    def resize(self) -> bool:
        """Follows spec and plan; whether the number of pods, or of those that stay, is another now."""
        before = self.size
        workers = self.owned.service.spec.workers
        target = wanted(workers, self._planned, before.target)
        self.size = resized(before, target, self._clock())
        if self.size.target != before.target:
            self._log.info(
                "resize", service=str(self.key), workers=before.target, to=self.size.target
            )
        return self.size != before

    def routers(self) -> Mapping[str, str]:
        """Routers that are ready, by the pod's name."""
        return {
            p.name: f"{p.ip}:{names.GRPC_PORT}"
            for p in self._world.pods(self.key, names.ROUTER)
            if p.ready and p.ip and not p.deleting
        }

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
                )
            )
        return tuple(sorted(found, key=lambda m: m.name))

    async def decided(self, decision: Decision, plan: router_pb2.ApplyPlanRequest | None) -> None:
        """Keeps the plan, labels the pods with their level, and notes the size that is asked for."""
        resizes = decision.fleet_size not in (None, self.size.target)
        self._planned = decision.fleet_size
        try:
            if plan is not None:
                await self._keep(plan)
                await self._label(decision)
        except ApiError as error:
            self._log.warning("plan_not_kept", service=str(self.key), message=str(error))
        await self._events.decided(self.owned, decision, resizes)

    async def write(self, status: ServiceStatus) -> None:
        """Hands the status to the writer, with what only the cluster knows."""
        selector = ",".join(
            f"{k}={v}" for k, v in names.selector(self.owned.name, names.WORKER).items()
        )
        pods = self._world.pods(self.key, names.WORKER)
        update = {"replicas": len(pods), "selector": selector}
        await self._writer.write(self.key, status.model_copy(update=update))

    async def _keep(self, plan: router_pb2.ApplyPlanRequest) -> None:
        text = json_format.MessageToJson(plan)
        if text == self._plan_json:
            return
        await self._api.apply(plan_config(self.owned, text))
        self._plan_json = text

    async def _label(self, decision: Decision) -> None:
        for pod in self._world.pods(self.key, names.WORKER):
            level = decision.assignment.get(pod.name)
            if level is None or pod.deleting or pod.level == str(level):
                continue
            body = {"metadata": {"labels": {names.LABEL_LEVEL: str(level)}}}
            await self._api.patch("v1", "Pod", self.owned.namespace, pod.name, body)


def owned_of(service: DiffusionService, body: Mapping[str, object]) -> Owned:
    """The service as the owner of its objects."""
    meta = body["metadata"]
    assert isinstance(meta, Mapping)
    return Owned(service, str(meta["namespace"]), str(meta["uid"]))
