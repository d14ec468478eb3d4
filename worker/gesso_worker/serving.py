"""What a worker serves with: the model that it holds, and its shard, which outlives models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from gesso.api import DiffusionService
from gesso.profile import Profile
from gesso_worker.cache.disk import DiskTier
from gesso_worker.cache.fingerprint import ModelIdentity, fingerprint
from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.peers import Peers
from gesso_worker.cache.shard import Shard
from gesso_worker.cache.signposts import Signposts
from gesso_worker.defaults import FETCH_DEADLINE_S
from gesso_worker.engine import Engine, EngineSettings, Job, Model
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.loading import OWN, Loaded
from gesso_worker.requests import GenerateSpec, Limits
from gesso_worker.starts import StartFinder

#: Of the cache's memory, what signposts may take at most.
SIGNPOST_SHARE: Final = 0.1


@dataclass(frozen=True)
class Store:
    """The shard, and what lies in it: latents of the service's own model, whatever the worker holds.

    `shape` is (1, C, H, W) of a latent.
    """

    name: str
    shard: Shard
    peers: Peers
    fingerprint: str
    ladder: tuple[int, ...]
    shape: tuple[int, ...]
    #: What is known of others' entries.
    signposts: Signposts = field(default_factory=lambda: Signposts(0))
    fetch_deadline_s: float = FETCH_DEADLINE_S


@dataclass(frozen=True)
class Serving:
    """One model at work. `model` is its name: empty for the service's own."""

    model: str
    engine: Engine
    starts: StartFinder
    identity: ModelIdentity
    limits: Limits
    live: LiveProfile

    @property
    def profile(self) -> Profile:
        """How long the device takes, as it is now."""
        return self.live.profile

    @property
    def caches(self) -> bool:
        """Whether its latents go into the shard: only the service's own model has levels to use them at."""
        return self.model == OWN

    def fingerprint(self, spec: GenerateSpec) -> str:
        """Under what a request's latents may be used."""
        identity = replace(
            self.identity, width=spec.width, height=spec.height, scheduler=spec.scheduler
        )
        return fingerprint(identity, spec.guidance_scale, spec.negative_prompt)

    @cached_property
    def default_fingerprint(self) -> str:
        """That of requests which name neither guidance nor negative prompt: what look-ups find."""
        return fingerprint(self.identity, self.limits.guidance_scale)


def identity_of(model: Model) -> ModelIdentity:
    """What a loaded model's latents depend on."""
    settings = model.settings
    return ModelIdentity(
        weights_digest=model.weights_digest,
        scheduler=settings.scheduler,
        scheduler_config=dict(model.scheduler.config),
        steps=settings.steps,
        width=settings.width,
        height=settings.height,
    )


def make_store(
    name: str,
    service: DiffusionService,
    own: Model,
    peers: Peers,
    disk: tuple[Path, int] | None = None,
    fetch_deadline_s: float = FETCH_DEADLINE_S,
) -> Store:
    """The shard for latents of the service's own model, with what lies in its folder on disk.

    `disk` is that folder, and its bound in bytes; a peer has `fetch_deadline_s` to answer. Raises FolderError.
    """
    cache = service.spec.cache
    print_ = fingerprint(identity_of(own), own.settings.guidance_scale)
    tier = DiskTier(LatentFolder(disk[0]), disk[1]) if disk is not None else None
    shared = cache.isolation == "Shared"
    shard = Shard(name, cache.capacity_bytes, shared, tier, print_)
    signposts = Signposts(int(SIGNPOST_SHARE * cache.capacity_bytes), shared, shard.reserve)
    ladder, shape = service.ladder, own.latent_shape
    return Store(name, shard, peers, print_, ladder, shape, signposts, fetch_deadline_s)


def make_serving(
    name: str,
    loaded: Loaded,
    store: Store,
    max_batch: int,
    max_accepted: int,
    threads: int,
    fixed_guidance: bool = False,
) -> Serving:
    """A model at work; its engine is not started yet. Other models than the own one keep no latents.

    With `fixed_guidance` the model's own guidance scale holds, whatever requests name.
    """
    model, profile = loaded.model, loaded.warm.profile
    settings = EngineSettings(
        # Larger batches did not fit into memory at warm-up, or serve no more.
        max_batch=min(max_batch, profile.best_batch()),
        max_accepted=max_accepted,
        threads=threads,
        step_seconds=profile.tick_seconds(profile.max_batch),
        decode_seconds=profile.decode_seconds,
    )
    live = LiveProfile(profile)
    spec = model.settings
    return Serving(
        model=name,
        engine=Engine(
            model,
            settings,
            keep_in(store) if name == OWN else None,
            live=live,
            projection=loaded.warm.projection,
            sample=loaded.warm.sample,
        ),
        starts=StartFinder(
            store.name, store.shard, store.peers, model.latent_shape, store.fetch_deadline_s
        ),
        identity=identity_of(model),
        limits=Limits(
            width=spec.width,
            height=spec.height,
            guidance_scale=spec.guidance_scale,
            ladder=store.ladder if name == OWN else (0,),
            scheduler=spec.scheduler,
            side_step=model.pixel_step,
            least_side=model.least_side,
            fixed_guidance=fixed_guidance,
        ),
        live=live,
    )


def keep_in(store: Store) -> Any:
    """The engine's `keep`: puts the latents of a finished run into the shard."""

    def keep(job: Job, latents: dict[int, torch.Tensor]) -> None:
        spec = job.request.owner
        if not isinstance(spec, GenerateSpec) or spec.embedding is None:
            return
        arrays = {level: _array(tensor) for level, tensor in latents.items()}
        store.shard.insert(
            spec.tenant,
            store.fingerprint,
            spec.embedding,
            arrays,
            spec.request_id,
            wanted=lambda: not job.cancelled,
        )

    return keep


def _array(tensor: torch.Tensor) -> Any:
    """float16 as it is, anything else as float32, which holds bfloat16 exactly."""
    kept = tensor if tensor.dtype == torch.float16 else tensor.float()
    return kept.cpu().numpy()
