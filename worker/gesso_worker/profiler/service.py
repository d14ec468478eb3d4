"""Measures every model of a service on this device, and what changing between them takes."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import platform
from datetime import UTC, datetime

import torch

from gesso.api import DiffusionService
from gesso.profile_file import MeasuredModel, MeasuredSwitch, ProfileFile
from gesso_worker.engine import Model, ModelLoadError
from gesso_worker.loading import OWN, Loaded, Loader
from gesso_worker.profiler.fetch import measure_fetch
from gesso_worker.profiler.stages import Say, batches_up_to, measure

_PROGRAMS = ("gesso", "torch", "diffusers", "transformers", "faiss-cpu")


def measure_service(
    service: DiffusionService, threads: int, max_batch: int, repeats: int, say: Say
) -> ProfileFile:
    """Loads each model in turn, as a worker does, and measures it; see `stages.measure`.

    Raises ModelLoadError for a model that cannot be served.
    """
    torch.set_num_threads(threads)
    loader = Loader(service, threads)
    held, name = _load(loader, OWN, say), OWN
    fetch = asyncio.run(measure_fetch(held.model))
    models, switches = [_measured(service, OWN, held.model, max_batch, repeats, say)], []
    device = held.model.device_name
    for other in loader.names[1:]:
        for after in (other, OWN):
            before, name = name, after
            del held
            _let_go()
            held = _load(loader, after, say)
            switches.append(
                MeasuredSwitch(
                    before=before,
                    after=after,
                    load_seconds=held.load_seconds,
                    warmup_seconds=held.warmup_seconds,
                )
            )
            if after == other:
                models.append(_measured(service, other, held.model, max_batch, repeats, say))
    return ProfileFile(
        device=device,
        threads=threads,
        versions=_versions(),
        measured_at=datetime.now(UTC).replace(microsecond=0),
        models=tuple(models),
        fetch_seconds=fetch,
        switches=tuple(switches),
    )


def _load(loader: Loader, name: str, say: Say) -> Loaded:
    say(f"loading {name or 'the model'}", 0, 0)

    async def load() -> Loaded:
        await loader.find(name)
        return await loader.load(name)

    return asyncio.run(load())


def _measured(
    service: DiffusionService, name: str, model: Model, max_batch: int, repeats: int, say: Say
) -> MeasuredModel:
    settings = model.settings
    ladder = service.ladder if name == OWN else (0,)
    try:
        found = measure(model, ladder, batches_up_to(max_batch), repeats, say)
    except torch.OutOfMemoryError:
        raise ModelLoadError(
            f"spec.model.source: {settings.source!r}: one image does not fit into memory"
        ) from None
    return MeasuredModel(
        name=name,
        source=settings.source,
        steps=settings.steps,
        width=settings.width,
        height=settings.height,
        scheduler=settings.scheduler,
        dtype=str(model.dtype).removeprefix("torch."),
        guidance_scale=settings.guidance_scale,
        encode_seconds=found.encode,
        decode_seconds=found.decode,
        step_seconds=found.steps,
        latencies=found.latencies,
    )


def _let_go() -> None:
    """Frees what a model held before the next one is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _versions() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "system": f"{platform.machine()} {platform.system()}",
    }
    for program in _PROGRAMS:
        try:
            found[program] = importlib.metadata.version(program)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda and torch.cuda.is_available():
        found["cuda"] = torch.version.cuda
    return found
