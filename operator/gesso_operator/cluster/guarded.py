"""Clients that act only while this operator leads: the Lease is checked right before each act."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gesso.rpc.v1 import router_pb2, worker_pb2
from gesso.tls import Tls
from gesso_operator.clients import Clients, Failure
from gesso_operator.cluster.api import Api, ApiError, Object

_TOLD = "this operator does not hold the Lease"


class GuardedApi(Api):
    """Reads always, writes only while leading."""

    def __init__(self, api: Api, leads: Callable[[], bool]) -> None:
        """Over the connections of `api`; `leads` is asked before each write."""
        super().__init__()
        self._api, self._leads = api, leads

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """As `Api.call`; raises ApiError where it would write without leading."""
        if method != "GET" and not self._leads():
            raise ApiError(0, "NotLeading", _TOLD)
        return await self._api.call(method, path, body, content, accept)


class GuardedClients(Clients):
    """Asks always, assigns and pushes plans only while leading."""

    def __init__(
        self, leads: Callable[[], bool], slots: asyncio.Semaphore, tls: Tls | None = None
    ) -> None:
        """`leads` is asked before each act; `slots` is shared by the clients of all services."""
        super().__init__(slots=slots, tls=tls)
        self._leads = leads

    async def assign(
        self, address: str, skipped_steps: int, revision: int, model: str = ""
    ) -> worker_pb2.AssignResponse | Failure:
        """As `Clients.assign`."""
        if not self._leads():
            return Failure(_TOLD)
        return await super().assign(address, skipped_steps, revision, model)

    async def hand_over(
        self, address: str, targets: Mapping[str, str], seconds: float
    ) -> worker_pb2.HandOverResponse | Failure:
        """As `Clients.hand_over`."""
        if not self._leads():
            return Failure(_TOLD)
        return await super().hand_over(address, targets, seconds)

    async def apply_plan(
        self, address: str, request: router_pb2.ApplyPlanRequest
    ) -> router_pb2.ApplyPlanResponse | Failure:
        """As `Clients.apply_plan`."""
        if not self._leads():
            return Failure(_TOLD)
        return await super().apply_plan(address, request)
