"""Loads a service's models by name, and warms them up, in threads that do not hold up the exit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from gesso.api import DiffusionService, OtherModelSpec
from gesso_worker.engine import (
    Model,
    ModelLoadError,
    ModelSettings,
    WarmUp,
    find_weights,
    load_model,
    warm_up,
)
from gesso_worker.footprint import bytes_of_files, bytes_of_pipeline

_Result = TypeVar("_Result")

#: The service's own model; the others go by their variants' names.
OWN = ""


@dataclass(frozen=True)
class Loaded:
    """A model that has made an image, how long loading and warming up took, and the bytes of its weights."""

    model: Model
    warm: WarmUp
    load_seconds: float
    warmup_seconds: float
    size: int


class Loader:
    """The models of one service, by name."""

    def __init__(self, service: DiffusionService, threads: int) -> None:
        """`threads` are torch's."""
        self._threads = threads
        self._max_batch = service.spec.workers.max_batch
        own = _settings(service)
        self._settings = {OWN: own}
        self._paths = {OWN: "spec.model"}
        self._fixed_guidance: set[str] = set()
        for i, variant in enumerate(service.spec.variants):
            if variant.model is not None:
                self._settings[variant.name] = _other(own, variant.model)
                if variant.model.guidance_scale is not None:
                    self._fixed_guidance.add(variant.name)
                self._paths[variant.name] = f"spec.variants[{i}].model"

    @property
    def names(self) -> tuple[str, ...]:
        """The own model's, which is empty, then the other variants'."""
        return tuple(self._settings)

    def settings(self, name: str) -> ModelSettings:
        """How a model is run."""
        return self._settings[name]

    def fixes_guidance(self, name: str) -> bool:
        """Whether a model's guidance scale holds whatever a request names."""
        return name in self._fixed_guidance

    async def find(self, name: str, deadline_s: float | None = None) -> int:
        """Looks whether a model is there, and downloads what is missing; the bytes that its weights will take.

        Raises ModelLoadError.
        """
        found = self._settings[name]
        wide = found.dtype == "float32" or not torch.cuda.is_available()

        def find() -> int:
            files = find_weights(found.source, found.vae)
            try:
                return bytes_of_files(files, 4 if wide else 2)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ModelLoadError(
                    f"spec.model.source: {found.source!r} cannot be loaded: {error}"
                ) from error

        return await self._guarded(name, find, deadline_s)

    async def load(self, name: str, deadline_s: float | None = None) -> Loaded:
        """Loads a model and warms it up. Raises ModelLoadError."""

        def load() -> Loaded:
            torch.set_num_threads(self._threads)
            began = time.monotonic()
            model = load_model(self._settings[name])
            loaded = time.monotonic()
            warm = warm_up(model, self._max_batch)
            size = bytes_of_pipeline(model.pipeline)
            return Loaded(model, warm, loaded - began, time.monotonic() - loaded, size)

        return await self._guarded(name, load, deadline_s)

    async def _guarded(
        self, name: str, work: Callable[[], _Result], deadline_s: float | None
    ) -> _Result:
        try:
            return await asyncio.wait_for(in_thread(work, "load"), deadline_s)
        except TimeoutError:
            told = f"{self._paths[name]}.source: not there after {deadline_s:g} s"
            raise ModelLoadError(told) from None
        except ModelLoadError as error:
            told = str(error).replace("spec.model.", f"{self._paths[name]}.", 1)
            raise ModelLoadError(told) from error


def in_thread(work: Callable[[], _Result], name: str) -> asyncio.Future[_Result]:
    """Works in a daemon thread, which does not hold up the exit as an executor's would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def tell(result: list[_Result], error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result[0])

    def run() -> None:
        result: list[_Result] = []
        failure = None
        try:
            result.append(work())
        except BaseException as error:
            failure = error
        # The loop is gone if the process was stopped meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def _settings(service: DiffusionService) -> ModelSettings:
    spec = service.spec.model
    return ModelSettings(
        source=spec.source,
        steps=spec.steps,
        width=spec.width,
        height=spec.height,
        guidance_scale=spec.guidance_scale,
        scheduler=spec.scheduler,
        dtype=spec.dtype,
        vae=spec.vae,
        compile=spec.compile,
    )


def _other(own: ModelSettings, spec: OtherModelSpec) -> ModelSettings:
    """What all models of a service share is that of `spec.model`."""
    guidance = own.guidance_scale if spec.guidance_scale is None else spec.guidance_scale
    # Another model brings the VAE that goes with it.
    vae = own.vae if spec.source == own.source else ""
    return replace(own, source=spec.source, steps=spec.steps, guidance_scale=guidance, vae=vae)
