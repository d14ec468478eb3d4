"""A router without wire or model: a scripted pool, a clock that stands still, an embedder of two dimensions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gesso.api import DiffusionService, parse_service
from gesso.profile import Profile
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.core import Router
from gesso_router.fleet import Endpoint, Fleet, WorkerReport
from gesso_router.models import Models
from gesso_router.pool import WorkerFailedError
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_router.routing.quality import Match, QualityPredictor
from gesso_router.validation import Job, Raw, validate

LADDER = (0, 5, 10, 15, 20, 25)
PROFILE = Profile("fake", 50, 0.0, 0.0, (0.01, 0.011, 0.012, 0.013))
PREDICTOR = SimilarityPredictor(
    LADDER,
    ((0.5, 0.7), (0.9, 1.0)),
    ((1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (1.0, 1.0, 0.99, 0.98, 0.97, 0.96)),
)


def service(
    policy: str = "QualityAware", max_queue: int = 256, isolation: str = "Tenant"
) -> DiffusionService:
    return parse_service(
        f"""
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: tiny}}
spec:
  model: {{source: some/model, steps: 50, width: 64, height: 64, guidanceScale: 2.0}}
  slo: {{latencySeconds: 2.0, minRelativeQuality: 0.5}}
  workers: {{min: 1, max: 2, maxBatch: 4}}
  scheduling: {{policy: {policy}}}
  cache: {{isolation: {isolation}}}
  router: {{maxQueue: {max_queue}}}
"""
    )


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


#: What a worker does with a request: returns the K used, or raises.
Script = Callable[[worker_pb2.WorkerGenerateRequest], Awaitable[int]]


@dataclass
class ScriptedPool:
    """Answers from scripts, the default being an image at the K asked for."""

    matches: list[Match] = field(default_factory=list)
    scripts: dict[str, list[Script]] = field(
        default_factory=dict
    )  # by prompt, one for each attempt
    sent: list[tuple[str, worker_pb2.WorkerGenerateRequest]] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    #: So many attempts end once they have begun.
    breaks: int = 0
    unanswered_lookups: int = 0
    probed: int = 0
    used: tuple[str, str] | None = None  # worker and entry that workers tell to have begun with

    async def lookup(
        self,
        tenant: str,
        embedding: Sequence[float],
        workers: Sequence[Endpoint],
        timeout_seconds: float,
    ) -> list[Match]:
        assert timeout_seconds <= 1.0
        self.lookups.append(tenant)
        await asyncio.sleep(0)
        names = {w.name for w in workers}
        return [m for m in self.matches if m.worker in names]

    async def generate(
        self,
        worker: str,
        request: worker_pb2.WorkerGenerateRequest,
        timeout_seconds: float,
        on_event: Callable[[worker_pb2.WorkerEvent], Awaitable[None]],
    ) -> worker_pb2.WorkerImage:
        self.sent.append((worker, request))
        await asyncio.sleep(0)
        scripts = self.scripts.get(request.prompt)
        used = await scripts.pop(0)(request) if scripts else request.skipped_steps
        await on_event(
            worker_pb2.WorkerEvent(started=image_pb2.Started(worker=worker, skipped_steps=used))
        )
        if self.breaks:
            self.breaks -= 1
            raise WorkerFailedError(worker, "told to break off", retryable=True)
        await on_event(worker_pb2.WorkerEvent(progress=image_pb2.Progress(step=used + 1, steps=50)))
        image = worker_pb2.WorkerImage(
            data=b"image", format="IMAGE_FORMAT_PNG", width=64, height=64, skipped_steps=used
        )
        if self.used is not None:
            image.source.worker, image.source.entry_id = self.used
        return image


class FixedEmbedder:
    """One vector for every prompt."""

    async def embed(self, prompt: str) -> Any:
        await asyncio.sleep(0)
        if prompt == "cannot be embedded":
            raise RuntimeError("no")
        return np.array([1.0, 0.0], dtype=np.float32)


def router(
    pool: ScriptedPool,
    clock: Clock,
    spec: DiffusionService | None = None,
    workers: Sequence[str] = ("a", "b"),
    predictor: QualityPredictor = PREDICTOR,
    reports: Mapping[str, WorkerReport] | None = None,
) -> Router:
    """`reports` are what workers tell, by name, where it is not that they are ready with the own model."""
    spec = spec or service()
    fleet = Fleet(50, 4, 3, Models.of(spec).steps)
    ready = WorkerReport(ready=True, draining=False, profile=PROFILE)
    fleet.apply([Endpoint(w, f"{w}:1", 0) for w in workers])
    for name in workers:
        fleet.reported(name, (reports or {}).get(name, ready), clock.now)
    made = Router(spec, predictor, fleet, pool, clock=clock, draw=lambda: 0.5)
    made.embedder = FixedEmbedder()
    return made


def job(spec: DiffusionService, prompt: str = "a red star", **fields: Any) -> Job:
    return validate(Raw(prompt=prompt, **fields), spec)


@dataclass
class Events:
    """Collects what a client is sent."""

    seen: list[image_pb2.GenerateEvent] = field(default_factory=list)

    async def __call__(self, event: image_pb2.GenerateEvent) -> None:
        self.seen.append(event)

    @property
    def kinds(self) -> list[str | None]:
        return [e.WhichOneof("event") for e in self.seen]


def failing(retryable: bool = True, timed_out: bool = False, refused: bool = False) -> Script:
    async def script(request: worker_pb2.WorkerGenerateRequest) -> int:
        raise WorkerFailedError(
            "x", "told to fail", retryable=retryable, timed_out=timed_out, refused=refused
        )

    return script
