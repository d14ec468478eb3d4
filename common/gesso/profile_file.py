"""The file that `gesso profile` writes: a service's models as measured on one device, and its reading."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gesso.csv_input import InputError
from gesso.profile import Profile

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Times(_Part):
    """Mean and 95th percentile of a duration, in seconds."""

    mean: Seconds
    p95: Seconds


class MeasuredStep(Times):
    """One tick of a denoising batch."""

    mean: Annotated[float, Field(gt=0, le=3600)]
    batch: int = Field(ge=1, le=64)


class MeasuredLatency(Times):
    """One image at K in a batch that starts and stays together, waiting apart."""

    skipped_steps: int = Field(ge=0)
    batch: int = Field(ge=1, le=64)


class MeasuredModel(_Part):
    """One model: `name` is its variant's, empty for the service's own."""

    name: str
    source: str
    steps: int = Field(ge=1, le=1000)
    width: int
    height: int
    scheduler: str
    dtype: str
    guidance_scale: float
    encode_seconds: Times
    decode_seconds: Times
    step_seconds: tuple[MeasuredStep, ...] = Field(min_length=1)
    latencies: tuple[MeasuredLatency, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        batches = [s.batch for s in self.step_seconds]
        if 1 not in batches or len(set(batches)) != len(batches):
            raise ValueError(f"step_seconds: batches {batches}: each once, 1 among them")
        levels = [lat.skipped_steps for lat in self.latencies if lat.skipped_steps >= self.steps]
        if levels:
            raise ValueError(f"latencies: skipped_steps {levels}: below steps ({self.steps})")
        return self

    def profile(self, device: str) -> Profile:
        """As planner and simulator reckon with it: batches between measured ones on straight lines."""
        steps = sorted(self.step_seconds, key=lambda s: s.batch)
        sizes = np.arange(1, steps[-1].batch + 1)
        ticks = np.interp(sizes, [s.batch for s in steps], [s.mean for s in steps])
        ratios = [lat.p95 / lat.mean for lat in self.latencies if lat.mean > 0]
        return Profile(
            device=device,
            steps=self.steps,
            encode_seconds=self.encode_seconds.mean,
            decode_seconds=self.decode_seconds.mean,
            step_seconds=tuple(float(t) for t in ticks),
            p95_ratio=max(1.0, float(np.mean(ratios))) if ratios else 1.0,
        )


class MeasuredFetch(_Part):
    """Latents of `bytes` bytes from a peer by gRPC on loopback, in seconds."""

    bytes: int = Field(ge=1)
    p50: Seconds
    p95: Seconds
    p99: Seconds


class MeasuredSwitch(_Part):
    """A change of model: seconds in which the worker serves nothing, what it finishes first apart."""

    before: str
    after: str
    load_seconds: Seconds
    warmup_seconds: Seconds


class ProfileFile(_Part):
    """All of it. `versions` are those of the programs that it was measured with."""

    format: Literal["gesso-profile/1"] = "gesso-profile/1"
    device: str
    threads: int = Field(ge=1)
    versions: dict[str, str]
    measured_at: datetime
    models: tuple[MeasuredModel, ...] = Field(min_length=1)
    fetch_seconds: MeasuredFetch
    switches: tuple[MeasuredSwitch, ...] = ()

    @property
    def own(self) -> MeasuredModel:
        """The service's own model."""
        return next((m for m in self.models if not m.name), self.models[0])


def load_profile_file(path: Path | str) -> ProfileFile:
    """Reads a file. Raises InputError, which names file, field, value and what is allowed."""
    try:
        return ProfileFile.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(path, str(error.strerror)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        shown = repr(first["input"])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise InputError(path, f"{where}: {shown} is not allowed: {first['msg']}") from None
