"""A request on its way through the engine, and what the engine says about it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from gesso.logs import NOBODY, Subject
from gesso_worker.engine.images import ImageFormat


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What to generate; `deadline_s` on the engine's clock, `keep_levels` the K whose latents are kept."""

    request_id: str
    prompt: str
    seed: int
    guidance_scale: float
    negative_prompt: str = ""
    skipped_steps: int = 0
    image_format: ImageFormat = "png"
    deadline_s: float = float("inf")
    keep_levels: tuple[int, ...] = ()
    #: Pixels; 0: the model's own size.
    width: int = 0
    height: int = 0
    #: Sampler; empty: the model's own.
    scheduler: str = ""
    #: Steps between two progress events; 0: what suits the model's speed.
    progress_steps: int = 0
    #: Steps between two previews; 0: none.
    preview_steps: int = 0
    #: Whatever the caller wants to find again in the job; the engine does not look at it.
    owner: object = None
    #: What log lines about it tell.
    subject: Subject = NOBODY


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run starts: before step K, from `latents` (1, C, H, W); K = 0 starts from the seed's noise.

    `entry_id` and `worker` tell whose latents these are.
    """

    skipped_steps: int = 0
    latents: Tensor | None = None
    fetch_seconds: float = 0.0
    entry_id: str = ""
    worker: str = ""


@dataclass(slots=True)
class Timings:
    """Seconds of each stage; `queue` is all waiting between them, so that together they are the whole."""

    queue: float = 0.0
    encode: float = 0.0
    fetch: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A part of a job's time, in seconds on the engine's clock: `queue` before a stage, or a stage itself.

    Of denoising: the steps done, and the mean batch that they were done in. `failed`: the job ended in it.
    """

    name: str
    stage: Stage
    began_s: float
    ended_s: float
    failed: bool = False
    steps: int = 0
    batch: float = 0.0


class Stage(enum.Enum):
    """Where a job is."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    ENCODING = "encoding"
    READY = "ready"
    DENOISING = "denoising"
    DECODING = "decoding"
    DONE = "done"


#: What a stage is called by the work done in it; in the others a job waits.
NAMES = {Stage.ENCODING: "encode", Stage.DENOISING: "denoise", Stage.DECODING: "decode"}


class FailureReason(enum.Enum):
    """Why a job ended without an image."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "out of memory"
    INTERNAL = "internal"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Started:
    """The first denoising step is about to run, at the K really used."""

    skipped_steps: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done, the skipped ones included; `preview` is a small JPEG, or empty."""

    step: int
    steps: int
    preview: bytes = b""


@dataclass(frozen=True, slots=True)
class Finished:
    """The image file and how long its stages took."""

    data: bytes
    width: int
    height: int
    skipped_steps: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """No image; `message` says why and holds no prompt."""

    reason: FailureReason
    message: str


Event = Started | Progress | Finished | Failed
#: Called in the engine's threads, in order, the last with Finished or Failed; must not block.
Sink = Callable[[Event], None]


@dataclass(eq=False, slots=True)
class Job:
    """One accepted request. The engine owns every field; others read them."""

    request: ImageRequest
    sink: Sink
    key: int
    accepted_s: float
    start: Start = field(default_factory=Start)
    stage: Stage = Stage.ACCEPTED
    cancelled: bool = False
    timings: Timings = field(default_factory=Timings)
    #: When its present wait began.
    waiting_since_s: float = 0.0
    denoise_began_s: float = 0.0
    kept: dict[int, Tensor] = field(default_factory=dict)
    #: What its time went into so far.
    marks: list[Mark] = field(default_factory=list)
    #: When its present stage began; the steps done in it, and the sum of the batches that they were done in.
    stage_began_s: float = 0.0
    steps: int = 0
    batches: int = 0

    def doomed(self, now_s: float) -> FailureReason | None:
        """Why it should be dropped rather than worked on, or None."""
        if self.cancelled:
            return FailureReason.CANCELLED
        return FailureReason.DEADLINE if now_s >= self.request.deadline_s else None

    def waited(self, stage: Stage, now_s: float, failed: bool = False) -> None:
        """Marks the wait before a stage."""
        began_s = max(self.waiting_since_s, self.stage_began_s)
        self.marks.append(Mark("queue", stage, began_s, now_s, failed))
        self.stage_began_s = now_s

    def stepped(self, batch: int) -> None:
        """A step was done, in a batch of so many."""
        self.steps += 1
        self.batches += batch

    def worked(self, now_s: float, failed: bool = False) -> None:
        """Marks the stage that it is in, which is over."""
        name, steps = NAMES.get(self.stage, "queue"), self.steps
        batch = self.batches / steps if steps else 0.0
        self.marks.append(Mark(name, self.stage, self.stage_began_s, now_s, failed, steps, batch))
        self.stage_began_s = now_s
        self.steps = self.batches = 0
