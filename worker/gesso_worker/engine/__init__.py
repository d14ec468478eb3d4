"""Generates images: encode | denoise | decode, with requests joining the denoising batch at any step."""

from gesso_worker.engine.engine import Engine, EngineSettings, Snapshot
from gesso_worker.engine.job import (
    Event,
    Failed,
    FailureReason,
    Finished,
    ImageRequest,
    Job,
    Progress,
    Start,
    Started,
)
from gesso_worker.engine.ledger import ClosedError, QueueFullError
from gesso_worker.engine.model import (
    Model,
    ModelLoadError,
    ModelSettings,
    find_weights,
    load_model,
)
from gesso_worker.engine.profiling import WarmUp, warm_up

__all__ = [
    "ClosedError",
    "Engine",
    "EngineSettings",
    "Event",
    "Failed",
    "FailureReason",
    "Finished",
    "ImageRequest",
    "Job",
    "Model",
    "ModelLoadError",
    "ModelSettings",
    "Progress",
    "QueueFullError",
    "Snapshot",
    "Start",
    "Started",
    "WarmUp",
    "find_weights",
    "load_model",
    "warm_up",
]
