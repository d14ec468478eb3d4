"""What one simulated run is made of: the fleet, its variants, the requests, and what will happen to it.

Everything is resolved: arrays and numbers, no file and no choice left open. Two runs on equal `ScenarioRun`s
see the same requests in the same order, whatever the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gesso.profile import Profile
from gesso_router.routing.quality import Match, QualityPredictor

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Where a run's load and prompts come from: recorded, the project's own substitute, or the user's files.
DataOrigin = Literal["recorded", "synthetic", "given"]


@dataclass(frozen=True)
class Variant:
    """One way to make an image: K of a model. `model` is empty for the service's own."""

    model: str
    skipped_steps: int

    @property
    def name(self) -> str:
        """`10`, `lightning`, `lightning/10`: as `gesso.plan.LevelPlan.variant` writes it."""
        if not self.model:
            return str(self.skipped_steps)
        return f"{self.model}/{self.skipped_steps}" if self.skipped_steps else self.model


@dataclass(frozen=True)
class DeviceClass:
    """One kind of GPU: how long each model takes on it, and how long each takes to load.

    `profiles` and `load_seconds` are by model name, the service's own under the empty string; the `device`
    of every profile is `name`. Loading replaces the model that the worker held, also the service's own.
    """

    name: str
    profiles: Mapping[str, Profile]
    load_seconds: Mapping[str, float]

    @property
    def own(self) -> Profile:
        """The profile of the service's own model."""
        return self.profiles[""]


@dataclass(frozen=True)
class WorkerSpec:
    """One worker: its name, its GPU, and the model that it holds when the run begins."""

    name: str
    device: DeviceClass
    model: str = ""


@dataclass(frozen=True)
class FleetEvent:
    """A worker is lost at a time, with all that it was serving; or one is back, ready, its model loaded."""

    at_s: float
    worker: str
    kind: Literal["lost", "back"]


@dataclass(frozen=True)
class Elastic:
    """Bounds of a fleet whose size follows the plan.

    `ScenarioRun.workers` lists `most` workers; the first `initial` are up when the run begins. A worker asked
    for is ready `start_seconds` later, its model loaded and warmed up. `least_mean_quality` is the mean
    relative quality that the fleet is to be sized for.
    """

    least: int
    most: int
    initial: int
    start_seconds: float
    least_mean_quality: float


@dataclass(frozen=True)
class History:
    """Arrivals before the run: `counts[i]` in step i, each `step_seconds` long, the last one ending at time 0.

    A step that nobody observed is NaN. Empty: nothing is known.
    """

    step_seconds: float
    counts: F64


class CacheModel(Protocol):
    """A cache that fills and evicts as a run goes on: for prompts whose similarity is not given."""

    def lookup(self, prompt: int, now_s: float) -> tuple[Match, ...]:
        """The nearest entries of a prompt of the log, nearest first; none: the cache holds nothing."""

    def served(
        self,
        prompt: int,
        skipped_steps: int,
        worker: str,
        now_s: float,
        match: Match | None,
        keep: bool,
    ) -> None:
        """An image of this prompt was made at K, from the latent of `match` at K unless that is None.

        That latent counts a use. With `keep` the latents of the levels above K stay on the worker.
        """

    def lost(self, worker: str, now_s: float) -> None:
        """A worker is gone, and its shard with it."""

    def figures(self) -> dict[str, float]:
        """What the report tells of the cache, by name."""


#: True quality (m, k) over the own model's ladder of m images: the prompts (m,), and the similarity (m,) of the
#: entry that each started from.
QualityAt = Callable[[I64, F64], F64]


@dataclass(frozen=True)
class Workload:
    """Who asks for what, and when.

    Of the n requests: `arrival_s` (n,) in seconds from the start of the run, ascending, and `prompt` (n,), an
    index into the p prompts. Of the p prompts: `prompt_rows` (p,), their numbers in the log; `similarity`
    (p,) of the nearest cached prompt, NaN where it is not known beforehand; `quality` (p, v), the true
    relative quality at each variant, 0 to 1; `predicted` (p, v), what the router predicts. Where a run's cache
    is looked up, the latter two are what the best cache would allow, which bounds may reckon with; what a
    policy gets follows from what its cache holds. `offered` (m,) and
    `step_starts` (m,) are the trace behind it: requests of each step and when it begins.
    """

    arrival_s: F64
    prompt: I64
    prompt_rows: I64
    similarity: F64
    quality: F64
    predicted: F64
    step_starts: F64
    offered: I64
    duration_s: float

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class ScenarioRun:
    """All that the engine needs, and the words that the report needs.

    `variants` are the columns of the workload's matrices: the own model's ladder first, ascending from
    K = 0, then each further model's. `steps` is the own model's number of steps. `predictor` covers the ladder;
    routing may as well read `workload.predicted`, which is the same and covers other models too.
    `jitter` is the coefficient of variation of service times. `push_delay_s` passes between a decision
    and its arrival at routers and workers. `max_queue`: most accepted requests without an image yet.
    `cache` makes an empty cache for each policy's run. `quality_at` is the true quality by the entry that an
    image really started from; None: the workload's, whatever the entry.
    """

    name: str
    origin: DataOrigin
    notes: tuple[str, ...]
    seed: int
    day: int
    workload: Workload
    variants: tuple[Variant, ...]
    steps: int
    predictor: QualityPredictor
    workers: tuple[WorkerSpec, ...]
    slo_s: float
    attainment: float = 0.99
    min_quality: float = 0.0
    plan_interval_s: float = 30.0
    push_delay_s: float = 0.1
    jitter: float = 0.02
    max_batch: int = 1
    max_queue: int = 256
    events: tuple[FleetEvent, ...] = ()
    elastic: Elastic | None = None
    history: History | None = None
    cache: Callable[[], CacheModel] | None = None
    quality_at: QualityAt | None = None

    @cached_property
    def ladder(self) -> tuple[int, ...]:
        """The own model's levels, ascending from 0."""
        return tuple(v.skipped_steps for v in self.variants if not v.model)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model, the service's own (the empty name) first."""
        return tuple(dict.fromkeys(v.model for v in self.variants))

    @cached_property
    def classes(self) -> tuple[DeviceClass, ...]:
        """The device classes of the fleet, in the order of its workers."""
        return tuple({w.device.name: w.device for w in self.workers}.values())

    @property
    def full_latency_s(self) -> float:
        """Latency at K = 0 without waiting, on the first device class: what an SLO of `3x` multiplies."""
        return self.classes[0].own.latency_seconds(0)

    @property
    def full_capacity(self) -> float:
        """Images a second of the workers that are there at K = 0 of the own model, all of them always busy."""
        return sum(w.device.own.throughput(0) for w in self.workers)

    @cached_property
    def prompt_classes(self) -> tuple[str, ...]:
        """The predictor's class of each prompt."""
        by_value = {s: self.predictor.prompt_class(s) for s in np.unique(self.workload.similarity)}
        missing = self.predictor.prompt_class(None)
        return tuple(by_value.get(s, missing) for s in self.workload.similarity.tolist())
