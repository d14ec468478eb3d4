"""What is asked of a service, what comes back, and how a channel to it is opened."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import grpc

from gesso.rpc.v1 import image_pb2

Format = Literal["png", "jpeg", "webp"]
OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)
Metadata = tuple[tuple[str, str], ...]
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


@dataclass(frozen=True)
class Wish:
    """One image; None leaves a field to the service. See `image.proto` for ranges."""

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    guidance_scale: float | None = None
    slo_seconds: float | None = None
    min_quality: float | None = None
    format: Format = "png"
    tenant: str = ""
    width: int = 0
    height: int = 0

    def as_message(self, image_only: bool = False) -> image_pb2.GenerateRequest:
        """As it goes over the wire, with `image_only` without progress. Raises ValueError on what cannot."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "format"}
        return image_pb2.GenerateRequest(
            format=f"IMAGE_FORMAT_{self.format.upper()}",
            image_only=image_only,
            **{k: v for k, v in given.items() if v is not None},
        )


@dataclass(frozen=True)
class Image:
    """An image, and how it was made. Times in seconds; K is `skipped_steps`."""

    data: bytes
    width: int
    height: int
    seed: int
    skipped_steps: int
    similarity: float
    predicted_quality: float
    worker: str
    queue_seconds: float
    generate_seconds: float
    attempts: int
    model: str
    request_id: str

    @classmethod
    def of(cls, event: image_pb2.GenerateEvent) -> Image:
        """From the last event."""
        names = (f.name for f in fields(cls) if f.name != "request_id")
        return cls(**{n: getattr(event.image, n) for n in names}, request_id=event.request_id)


@dataclass(frozen=True)
class Progress:
    """A request under way: `worker` has done `step` of `steps`; before it began, both are 0."""

    worker: str = ""
    skipped_steps: int = 0
    step: int = 0
    steps: int = 0
    preview: bytes = b""


OnProgress = Callable[[Progress], None]


class Reader:
    """Takes the events of one image."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._told = on_progress
        self._now = Progress()
        self.image: Image | None = None

    def take(self, event: image_pb2.GenerateEvent) -> None:
        """Tells progress, and keeps the image."""
        match event.WhichOneof("event"):
            case "started":
                self._now = Progress(event.started.worker, event.started.skipped_steps)
            case "progress":
                now, done = self._now, event.progress
                self._now = Progress(
                    now.worker, now.skipped_steps, done.step, done.steps, done.preview
                )
            case "image":
                self.image = Image.of(event)
                return
        if self._told is not None:
            self._told(self._now)


def metadata_of(api_key: str | None, idempotency_key: str | None) -> Metadata:
    """What travels beside a request. Raises ValueError on a key that cannot."""
    found = []
    if api_key is not None:
        found.append(("authorization", f"Bearer {api_key}"))
    if idempotency_key is not None:
        if not _IDEMPOTENCY_KEY.match(idempotency_key):
            allowed = "1 to 255 printable ASCII characters without spaces"
            raise ValueError(f"idempotency_key: {idempotency_key[:64]!r} is not allowed: {allowed}")
        found.append(("idempotency-key", idempotency_key))
    return tuple(found)


def credentials_of(authority: bytes | None) -> grpc.ChannelCredentials:
    """TLS that trusts an authority in PEM, the system's if None."""
    return grpc.ssl_channel_credentials(authority)
