"""A client with several routers before it, as a load balancer in front of them makes of any client.

Routers take turns. One that refuses or resets a connection, or says that it is not ready, is passed over for a
second; the request is sent once more, to another, with the same Idempotency-Key.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from chaos.figures import Answer, Ending
from gesso.rpc.v1 import image_pb2, image_pb2_grpc
from gesso_simulator.workloads.sessions import PromptRequest

#: Seconds past its SLO after which a request without an answer counts as lost.
GRACE_S = 30.0
PASSED_OVER_S = 1.0
TRIES = 2
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 2**20),
)
_ELSEWHERE = {"not-ready", "no-worker"}


class _NoAnswerError(Exception):
    """This router did not answer, or is not ready: another may."""


class Balanced:
    """Use within `async with`."""

    def __init__(self, targets: Sequence[str], slo_seconds: float) -> None:
        """`targets` are the routers' gRPC host:port."""
        self._slo = slo_seconds
        self._channels = [grpc.aio.insecure_channel(t, options=_OPTIONS) for t in targets]
        self._stubs: list[Any] = [image_pb2_grpc.ImageServiceStub(c) for c in self._channels]
        self._passed_over = [0.0] * len(self._stubs)
        self._turns = itertools.count()

    async def __aenter__(self) -> Balanced:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    def _order(self) -> list[int]:
        """The routers as they are to be asked: in turn, those that failed just now last."""
        now, many, turn = time.monotonic(), len(self._stubs), next(self._turns)
        order = [(turn + i) % many for i in range(many)]
        return sorted(order, key=lambda r: self._passed_over[r] > now)

    async def send(self, asked: PromptRequest, start_s: float) -> Answer:
        """One request and its answer; never raises for what routers do."""
        key = uuid.uuid4().hex
        request = image_pb2.GenerateRequest(
            prompt=asked.prompt, seed=asked.seed, slo_seconds=self._slo
        )
        seen: dict[str, bool] = {}
        routers: list[int] = []
        detail = ""
        for router in self._order()[:TRIES]:
            routers.append(router)
            try:
                given = await self._ask(router, request, key, seen)
            except _NoAnswerError as error:
                detail = str(error)
                self._passed_over[router] = time.monotonic() + PASSED_OVER_S
                continue
            break
        else:
            given = {"ending": Ending.LOST, "detail": detail}
        latency = time.monotonic() - start_s - asked.at_s
        if given["ending"] is Ending.IN_SLO and latency > self._slo:
            given["ending"] = Ending.LATE
        return Answer(
            asked.at_s,
            latency_s=latency,
            accepted=bool(seen),
            routers=tuple(routers),
            **given,
        )

    async def _ask(
        self, router: int, request: image_pb2.GenerateRequest, key: str, seen: dict[str, bool]
    ) -> dict[str, Any]:
        image: image_pb2.Image | None = None
        try:
            call = self._stubs[router].Generate(
                request, timeout=self._slo + GRACE_S, metadata=(("idempotency-key", key),)
            )
            async for event in call:
                kind = event.WhichOneof("event")
                if kind == "image":
                    image = event.image
                elif kind in ("queued", "started"):
                    seen["accepted"] = True
        except grpc.aio.AioRpcError as error:
            reason = dict(error.trailing_metadata() or ()).get("reason", "")
            told = f"{error.code().name} {reason}: {error.details()}"
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return {"ending": Ending.REFUSED, "detail": told}
            if reason == "deadline":
                return {"ending": Ending.DROPPED, "detail": told}
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return {"ending": Ending.LOST, "detail": told}
            if not reason or reason in _ELSEWHERE:
                raise _NoAnswerError(told) from None
            return {"ending": Ending.FAILED, "detail": told}
        if image is None:
            raise _NoAnswerError("the stream ended without an image")
        return {
            "ending": Ending.IN_SLO,
            "attempts": image.attempts,
            "quality": image.predicted_quality,
            "skipped_steps": image.skipped_steps,
            "worker": image.worker,
        }
