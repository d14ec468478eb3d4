"""Images as the images API answers with them: JSON in pieces, server-sent events, headers.

Base64 is made piece by piece as the client reads, so that an image is held once, however slow the client.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gesso.rpc.v1 import image_pb2
from gesso_router.image_request import ImageRequest
from gesso_router.image_store import new_name
from gesso_router.validation import FORMATS, Job

#: Bytes of an image in one piece: a multiple of 3, so that the pieces' base64 joins up.
PIECE = 96 * 1024
KEEP_ALIVE = b": keep-alive\n\n"
#: What of an image is no field of the gRPC API's Image, or goes out apart from it.
_APART = ("request_id", "format", "data", "stored_as")


@dataclass(frozen=True)
class Made:
    """An image that was made for a job, off the wire."""

    request_id: str
    data: bytes
    format: str
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
    #: Its name where it is fetched by URL: who gets the same image again gets the same URL.
    stored_as: str = field(default_factory=new_name, repr=False, compare=False)

    @classmethod
    def of(cls, job: Job, image: image_pb2.Image) -> Made:
        """From the router's own."""
        return cls(
            job.request_id,
            image.data,
            FORMATS.get(image.format, "png"),
            image.width,
            image.height,
            image.seed,
            image.skipped_steps,
            image.similarity,
            image.predicted_quality,
            image.worker,
            image.queue_seconds,
            image.generate_seconds,
            image.attempts,
            image.model,
        )

    def head(self) -> image_pb2.Image:
        """As the gRPC front door sends it, but for its data."""
        fields = {k: v for k, v in vars(self).items() if k not in _APART}
        return image_pb2.Image(format=f"IMAGE_FORMAT_{self.format.upper()}", **fields)

    @property
    def size(self) -> str:
        """As OpenAI writes it."""
        return f"{self.width}x{self.height}"

    def extension(self) -> dict[str, Any]:
        """What Gesso tells beside what OpenAI does. The seed is text: JSON's numbers lose its last digits."""
        return {
            "request_id": self.request_id,
            "skipped_steps": self.skipped_steps,
            "similarity": round(self.similarity, 4),
            "predicted_quality": round(self.predicted_quality, 4),
            "worker": self.worker,
            "model": self.model,
            "seed": str(self.seed),
            "queue_seconds": round(self.queue_seconds, 4),
            "generate_seconds": round(self.generate_seconds, 4),
            "attempts": self.attempts,
        }


def headers(images: Sequence[Made]) -> dict[str, str]:
    """One value for each image, in order, separated by commas."""
    return {
        "X-Gesso-Request-Id": ", ".join(i.request_id for i in images),
        "X-Gesso-Skipped-Steps": ", ".join(str(i.skipped_steps) for i in images),
        "X-Gesso-Similarity": ", ".join(f"{i.similarity:.4f}" for i in images),
        "X-Gesso-Predicted-Quality": ", ".join(f"{i.predicted_quality:.4f}" for i in images),
        "X-Gesso-Worker": ", ".join(i.worker for i in images),
        "X-Gesso-Queue-Seconds": ", ".join(f"{i.queue_seconds:.3f}" for i in images),
        "X-Gesso-Generate-Seconds": ", ".join(f"{i.generate_seconds:.3f}" for i in images),
        "X-Gesso-Seed": ", ".join(str(i.seed) for i in images),
    }


def by_url(images: Sequence[Made], urls: Sequence[str]) -> dict[str, Any]:
    """The body of an answer that names where the images are."""
    data = [
        {"url": url, "gesso": image.extension()} for image, url in zip(images, urls, strict=True)
    ]
    return {"created": int(time.time()), "data": data, **_common(images[0])}


def in_pieces(images: Sequence[Made]) -> tuple[Iterator[bytes], int]:
    """The body of an answer that holds the images, and its length in bytes."""
    parts: list[bytes | Made] = [b'{"created":%d,"data":[' % int(time.time())]
    for i, image in enumerate(images):
        parts += [b'%s{"b64_json":"' % (b"," if i else b""), image]
        parts.append(b'","gesso":%s}' % _json(image.extension()))
    parts.append(b"],%s" % _json(_common(images[0]))[1:])
    return _pieces(parts), _length(parts)


def completed(image: Made) -> Iterator[bytes]:
    """The event with the image, which is the last."""
    event = {
        "created_at": int(time.time()),
        **_constants(image.format, image.size),
        # OpenAI's type has it; Gesso counts no tokens.
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
            "output_tokens": 0,
            "total_tokens": 0,
        },
        "gesso": image.extension(),
    }
    return _event("image_generation.completed", image, event)


def partial(request: ImageRequest, index: int, preview: bytes) -> bytes:
    """The event with a preview, which is a JPEG."""
    job = request.jobs[0]
    event = {
        "created_at": int(time.time()),
        "partial_image_index": index,
        **_constants("jpeg", f"{job.width}x{job.height}"),
    }
    kind = "image_generation.partial_image"
    text = base64.b64encode(preview)
    return b'event: %s\ndata: {"type":"%s","b64_json":"%s",%s\n\n' % (
        kind.encode(),
        kind.encode(),
        text,
        _json(event)[1:],
    )


def _event(kind: str, image: Made, fields: dict[str, Any]) -> Iterator[bytes]:
    name = kind.encode()
    return _pieces(
        [
            b'event: %s\ndata: {"type":"%s","b64_json":"' % (name, name),
            image,
            b'",%s\n\n' % _json(fields)[1:],
        ]
    )


def _pieces(parts: Sequence[bytes | Made]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        view = memoryview(part.data)
        for at in range(0, len(view), PIECE):
            yield base64.b64encode(view[at : at + PIECE])


def _length(parts: Sequence[bytes | Made]) -> int:
    return sum(len(p) if isinstance(p, bytes) else (len(p.data) + 2) // 3 * 4 for p in parts)


def _common(first: Made) -> dict[str, Any]:
    return {"background": "opaque", "output_format": first.format, "size": first.size}


def _constants(output_format: str, size: str) -> dict[str, Any]:
    return {
        "background": "opaque",
        "output_format": output_format,
        "quality": "auto",
        "size": size,
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
