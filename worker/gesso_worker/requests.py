"""Checks what comes over the wire; a bad request is told the field, its value and what is allowed."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gesso.codebook import CodebookError, from_bytes
from gesso.placement import Placement
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso.vectors import unpacked
from gesso_worker.cache.peers import PeerError, unpack
from gesso_worker.cache.records import Portable, Post
from gesso_worker.engine.images import ImageFormat
from gesso_worker.engine.schedule import SCHEDULERS

PROMPT_BYTES = 4096
NAME_BYTES = 256
LONGEST_EMBEDDING = 4096
MOST_MATCHES = 64
MOST_QUERIES = 64
LARGEST_GUIDANCE = 50.0
MOST_TARGETS = 64
LONGEST_HAND_OVER_S = 600.0
MOST_ENTRIES = 256
MOST_FALLBACKS = 4
MOST_WORKERS = 4096
MOST_IMAGES = 10
MOST_STEPS = 1000
#: More uses than any entry has seen; a bound, since scores are sums of them.
MOST_HITS = 1 << 40

_FORMATS: dict[int, ImageFormat] = {
    image_pb2.IMAGE_FORMAT_UNSPECIFIED: "png",
    image_pb2.IMAGE_FORMAT_PNG: "png",
    image_pb2.IMAGE_FORMAT_JPEG: "jpeg",
    image_pb2.IMAGE_FORMAT_WEBP: "webp",
}
#: The wire's name of each format.
FORMAT_CODES: dict[ImageFormat, image_pb2.ImageFormat] = {
    "png": image_pb2.IMAGE_FORMAT_PNG,
    "jpeg": image_pb2.IMAGE_FORMAT_JPEG,
    "webp": image_pb2.IMAGE_FORMAT_WEBP,
}


class BadRequestError(ValueError):
    """A request that cannot be served as it is."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        """The message is `field: value is not allowed: allowed`."""
        super().__init__(f"{field}: {value} is not allowed: {allowed}")


@dataclass(frozen=True)
class Limits:
    """What this worker serves."""

    width: int
    height: int
    guidance_scale: float
    ladder: tuple[int, ...]
    scheduler: str = "Euler"
    #: Pixels: what a side is a multiple of, and the shortest one.
    side_step: int = 8
    least_side: int = 16
    #: Whether `guidance_scale` holds whatever a request names.
    fixed_guidance: bool = False


@dataclass(frozen=True)
class Source:
    """Where a latent lies; an empty address is this worker."""

    entry_id: str
    worker: str
    address: str


@dataclass(frozen=True)
class GenerateSpec:
    """A checked WorkerGenerateRequest with its defaults filled in: images of seeds from `seed` on."""

    request_id: str
    prompt: str
    negative_prompt: str
    seed: int
    guidance_scale: float
    skipped_steps: int
    source: Source | None
    image_format: ImageFormat
    tenant: str
    embedding: NDArray[np.float32] | None
    keep_latents: bool
    #: Where to look when the source is gone, in turn.
    fallbacks: tuple[Source, ...] = ()
    width: int = 0
    height: int = 0
    scheduler: str = "Euler"
    images: int = 1
    progress_steps: int = 0
    preview_steps: int = 0


def check_generate(request: worker_pb2.WorkerGenerateRequest, limits: Limits) -> GenerateSpec:
    """Raises BadRequestError."""
    if not request.prompt.strip():
        raise BadRequestError("prompt", "empty", f"1 to {PROMPT_BYTES} bytes of UTF-8")
    _check_length("prompt", request.prompt, PROMPT_BYTES)
    _check_length("negative_prompt", request.negative_prompt, PROMPT_BYTES)
    _check_length("request_id", request.request_id, NAME_BYTES)
    _check_length("tenant", request.tenant, NAME_BYTES)
    width, height = _check_size(request.width, request.height, limits)
    if request.scheduler not in ("", *SCHEDULERS):
        allowed = f"one of {', '.join(SCHEDULERS)}, or empty for {limits.scheduler}"
        raise BadRequestError("scheduler", repr(request.scheduler[:NAME_BYTES]), allowed)
    for field, value, most in (
        ("images", request.images, MOST_IMAGES),
        ("progress_steps", request.progress_steps, MOST_STEPS),
        ("preview_steps", request.preview_steps, MOST_STEPS),
    ):
        if value > most:
            raise BadRequestError(field, value, f"at most {most}")
    images = request.images or 1
    if request.seed + images > 1 << 64:
        raise BadRequestError(
            "seed", request.seed, f"below 2^64 - {images - 1} for {images} images"
        )
    guidance = limits.guidance_scale
    if request.HasField("guidance_scale"):
        asked = request.guidance_scale
        if not (math.isfinite(asked) and 0 <= asked <= LARGEST_GUIDANCE):
            raise BadRequestError("guidance_scale", asked, f"0 to {LARGEST_GUIDANCE:g}")
        guidance = guidance if limits.fixed_guidance else asked
    if request.format not in _FORMATS:
        raise BadRequestError("format", request.format, "PNG, JPEG or WEBP")
    return GenerateSpec(
        request_id=request.request_id or uuid.uuid4().hex,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        guidance_scale=guidance,
        skipped_steps=check_level(request.skipped_steps, limits.ladder),
        source=_check_source(request),
        image_format=_FORMATS[request.format],
        tenant=request.tenant,
        embedding=check_embedding(request.embedding) if request.embedding else None,
        keep_latents=request.keep_latents,
        fallbacks=_check_fallbacks(request),
        width=width,
        height=height,
        scheduler=request.scheduler or limits.scheduler,
        images=images,
        progress_steps=request.progress_steps,
        preview_steps=request.preview_steps,
    )


def _check_size(width: int, height: int, limits: Limits) -> tuple[int, int]:
    """Width and height in pixels. What was measured at warm-up, memory too, holds up to the service's area."""
    wanted = (width or limits.width, height or limits.height)
    if wanted == (limits.width, limits.height):
        return wanted
    step, least, area = limits.side_step, limits.least_side, limits.width * limits.height
    for field, value, served in (
        ("width", wanted[0], limits.width),
        ("height", wanted[1], limits.height),
    ):
        fits = wanted[0] * wanted[1] <= area or value <= served
        if value % step or value < least or not fits:
            allowed = (
                f"{served} pixels, 0 for it, or a multiple of {step} from {least} on, "
                f"{area} pixels in all"
            )
            raise BadRequestError(field, value, allowed)
    return wanted


def check_level(skipped_steps: int, ladder: tuple[int, ...]) -> int:
    """A level of the ladder. Raises BadRequestError."""
    if skipped_steps not in ladder:
        levels = ", ".join(map(str, ladder))
        raise BadRequestError("skipped_steps", skipped_steps, f"one of the levels {levels}")
    return skipped_steps


def check_model(name: str, names: Collection[str]) -> str:
    """A model of the service: empty for its own, or another variant's name. Raises BadRequestError."""
    if name not in names:
        others = ", ".join(sorted(n for n in names if n))
        raise BadRequestError(
            "model",
            repr(name[:NAME_BYTES]),
            f"empty for spec.model{', or one of ' + others if others else ': there is no other'}",
        )
    return name


def check_hand_over(request: worker_pb2.HandOverRequest, name: str) -> tuple[list[str], float]:
    """Addresses and timeout in seconds; `name` is this worker's. Raises BadRequestError."""
    if not 1 <= len(request.targets) <= MOST_TARGETS:
        raise BadRequestError("targets", len(request.targets), f"1 to {MOST_TARGETS} of them")
    addresses = []
    for i, target in enumerate(request.targets):
        _check_length(f"targets[{i}].name", target.name, NAME_BYTES)
        _check_address(f"targets[{i}].address", target.address)
        if target.name == name:
            raise BadRequestError(f"targets[{i}].name", name, "another worker than this one")
        if target.address not in addresses:
            addresses.append(target.address)
    if not 0 < request.timeout_seconds <= LONGEST_HAND_OVER_S:
        raise BadRequestError(
            "timeout_seconds",
            request.timeout_seconds,
            f"above 0, at most {LONGEST_HAND_OVER_S:g}",
        )
    return addresses, request.timeout_seconds


def check_entries(
    request: worker_pb2.StoreEntriesRequest, ladder: tuple[int, ...], shape: tuple[int, ...]
) -> list[Portable]:
    """Entries for a shard of latents of this shape. Raises BadRequestError."""
    if len(request.entries) > MOST_ENTRIES:
        raise BadRequestError("entries", len(request.entries), f"at most {MOST_ENTRIES}")
    entries = []
    for i, entry in enumerate(request.entries):
        _check_length(f"entries[{i}].tenant", entry.tenant, NAME_BYTES)
        if not entry.levels:
            raise BadRequestError(f"entries[{i}].levels", "none", "at least one")
        latents, hits, origins = {}, {}, {}
        for level in entry.levels:
            field = f"entries[{i}].levels"
            k = check_level(level.skipped_steps, ladder)
            if not k:
                raise BadRequestError(field, "skipped_steps 0", "levels above 0")
            try:
                array = unpack(level)
            except PeerError as error:
                raise BadRequestError(field, "what came", str(error)) from None
            if array.shape != shape or not np.isfinite(array).all():
                allowed = f"finite latents of shape {shape}"
                raise BadRequestError(field, f"shape {array.shape}, or not finite", allowed)
            _check_length(f"{field}.origin", level.origin, NAME_BYTES)
            latents[k], hits[k] = array, min(level.hits, MOST_HITS)
            if level.origin:
                origins[k] = level.origin
        embedding = check_embedding(entry.embedding)
        entries.append(Portable(entry.tenant, embedding, latents, hits, origins))
    return entries


def check_withdraw(request: worker_pb2.WithdrawRequest) -> list[str]:
    """Ids of requests. Raises BadRequestError."""
    if len(request.request_ids) > MOST_ENTRIES:
        raise BadRequestError("request_ids", len(request.request_ids), f"at most {MOST_ENTRIES}")
    for i, name in enumerate(request.request_ids):
        _check_length(f"request_ids[{i}]", name, NAME_BYTES)
        if not name:
            raise BadRequestError(f"request_ids[{i}]", "empty", "the id of a request")
    return list(request.request_ids)


def check_place(request: worker_pb2.PlaceRequest, name: str) -> tuple[Placement, dict[str, str]]:
    """The placement, and the addresses of its workers; `name` is this one's. Raises BadRequestError."""
    addresses: dict[str, str] = {}
    for i, peer in enumerate(request.workers):
        _check_length(f"workers[{i}].name", peer.name, NAME_BYTES)
        _check_address(f"workers[{i}].address", peer.address)
        if not peer.name or peer.name in addresses:
            raise BadRequestError(f"workers[{i}].name", repr(peer.name), "a name, each once")
        addresses[peer.name] = peer.address
    if len(addresses) > MOST_WORKERS:
        raise BadRequestError("workers", len(addresses), f"at most {MOST_WORKERS}")
    if name not in addresses:
        raise BadRequestError("workers", "those named", f"{name}, which was asked, among them")
    try:
        codebook = from_bytes(request.codebook)
    except CodebookError as error:
        raise BadRequestError("codebook", "what came", str(error)) from None
    return Placement.of(codebook, tuple(addresses)), addresses


def check_announce(
    request: worker_pb2.AnnounceRequest, placement: Placement, ladder: tuple[int, ...]
) -> list[Post]:
    """What a worker of the placement tells. Raises BadRequestError."""
    if request.worker not in placement.workers:
        raise BadRequestError("worker", repr(request.worker), "one of the placement")
    if len(request.signposts) > MOST_ENTRIES:
        raise BadRequestError("signposts", len(request.signposts), f"at most {MOST_ENTRIES}")
    posts = []
    for i, post in enumerate(request.signposts):
        field = f"signposts[{i}]"
        _check_length(f"{field}.tenant", post.tenant, NAME_BYTES)
        _check_length(f"{field}.entry_id", post.entry_id, NAME_BYTES)
        if not post.entry_id:
            raise BadRequestError(f"{field}.entry_id", "empty", "an entry's id")
        levels = tuple(sorted(set(post.held_levels)))
        for level in levels:
            if not check_level(level, ladder):
                raise BadRequestError(f"{field}.held_levels", 0, "levels above 0")
        embedding = check_embedding(post.embedding) if levels else np.zeros(0, np.float32)
        if levels and embedding.size != placement.codebook.dimensions:
            allowed = f"{placement.codebook.dimensions}, as the codebook has it"
            raise BadRequestError(f"{field}.embedding", f"{embedding.size} numbers", allowed)
        posts.append(Post(post.entry_id, post.tenant, embedding, levels))
    return posts


class Query(NamedTuple):
    """What a look-up asks for one prompt."""

    tenant: str
    embedding: NDArray[np.float32]
    limit: int


def check_lookup(request: worker_pb2.LookupRequest) -> list[Query]:
    """The queries. Raises BadRequestError."""
    if not 1 <= len(request.queries) <= MOST_QUERIES:
        raise BadRequestError("queries", len(request.queries), f"1 to {MOST_QUERIES}")
    queries = []
    for i, query in enumerate(request.queries):
        _check_length(f"queries[{i}].tenant", query.tenant, NAME_BYTES)
        if query.limit > MOST_MATCHES:
            allowed = f"at most {MOST_MATCHES}; 0 for 1"
            raise BadRequestError(f"queries[{i}].limit", query.limit, allowed)
        queries.append(Query(query.tenant, check_embedding(query.embedding), query.limit or 1))
    return queries


def check_embedding(data: bytes) -> NDArray[np.float32]:
    """A prompt's embedding (D,), of unit length. Raises BadRequestError."""
    try:
        embedding = unpacked(data)
    except ValueError:
        raise BadRequestError("embedding", f"{len(data)} bytes", "4 for each number") from None
    if not 1 <= embedding.size <= LONGEST_EMBEDDING:
        allowed = f"1 to {LONGEST_EMBEDDING} numbers"
        raise BadRequestError("embedding", f"{embedding.size} numbers", allowed)
    length = float(np.linalg.norm(embedding))
    if not abs(length - 1) < 0.01:
        raise BadRequestError("embedding", f"length {length:.4g}", "unit length")
    return embedding


def _check_source(request: worker_pb2.WorkerGenerateRequest) -> Source | None:
    if request.skipped_steps and not request.source.entry_id:
        raise BadRequestError(
            "source", "none", "the entry to start from, where skipped_steps is above 0"
        )
    source = _source("source", request.source)
    return source if request.skipped_steps else None


def _check_fallbacks(request: worker_pb2.WorkerGenerateRequest) -> tuple[Source, ...]:
    if len(request.fallbacks) > MOST_FALLBACKS:
        raise BadRequestError("fallbacks", len(request.fallbacks), f"at most {MOST_FALLBACKS}")
    return tuple(_source(f"fallbacks[{i}]", s) for i, s in enumerate(request.fallbacks))


def _source(name: str, source: worker_pb2.LatentSource) -> Source:
    for field in ("entry_id", "worker", "address"):
        _check_length(f"{name}.{field}", getattr(source, field), NAME_BYTES)
    return Source(source.entry_id, source.worker, source.address)


def _check_address(field: str, address: str) -> None:
    _check_length(field, address, NAME_BYTES)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise BadRequestError(field, repr(address), "host:port")


def _check_length(field: str, text: str, most: int) -> None:
    size = len(text.encode())
    if size > most:
        raise BadRequestError(field, f"{size} bytes", f"at most {most} bytes of UTF-8")
