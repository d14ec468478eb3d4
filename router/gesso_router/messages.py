"""The messages that the router sends: events to clients, requests to workers."""

from __future__ import annotations

from collections.abc import Sequence

from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso.vectors import packed
from gesso_router.routing.quality import Match, Option, Vector
from gesso_router.validation import Job


def queued(request_id: str, predicted_wait_seconds: float) -> image_pb2.GenerateEvent:
    """Accepted, and on its way to a worker."""
    return image_pb2.GenerateEvent(
        request_id=request_id,
        queued=image_pb2.Queued(predicted_wait_seconds=predicted_wait_seconds),
    )


def started(request_id: str, worker: str, skipped_steps: int) -> image_pb2.GenerateEvent:
    """The first denoising step begins."""
    return image_pb2.GenerateEvent(
        request_id=request_id,
        started=image_pb2.Started(worker=worker, skipped_steps=skipped_steps),
    )


def progress(request_id: str, value: image_pb2.Progress) -> image_pb2.GenerateEvent:
    """A denoising step is done."""
    return image_pb2.GenerateEvent(request_id=request_id, progress=value)


class Encoded:
    """An event as it goes over the wire, given away once: while it waits to be sent, gRPC alone holds it."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    @classmethod
    def image(cls, request_id: str, value: image_pb2.Image, data: bytes = b"") -> Encoded:
        """The last event; `data` is the image's where `value` comes without: it is copied once."""
        event = image_pb2.GenerateEvent(request_id=request_id).SerializeToString()
        parts = [value.SerializeToString()]
        if data:
            parts += [_DATA_TAG, varint(len(data)), data]
        length = varint(sum(map(len, parts)))
        return cls(b"".join((event, _IMAGE_TAG, length, *parts)))

    def __len__(self) -> int:
        """In bytes; 0 once they are given away."""
        return len(self._data or b"")

    def take(self) -> bytes:
        """The bytes, which are gone from here afterwards."""
        assert self._data is not None
        data, self._data = self._data, None
        return data


def encoded(event: image_pb2.GenerateEvent | Encoded) -> bytes:
    """An event as it goes over the wire."""
    return event.take() if isinstance(event, Encoded) else event.SerializeToString()


#: Of GenerateEvent.image and Image.data: their numbers, and that a length follows.
_IMAGE_TAG = bytes([image_pb2.GenerateEvent.IMAGE_FIELD_NUMBER << 3 | 2])
_DATA_TAG = bytes([image_pb2.Image.DATA_FIELD_NUMBER << 3 | 2])


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def image(
    job: Job,
    made: worker_pb2.WorkerImage,
    *,
    worker: str,
    similarity: float,
    quality: float,
    queue_seconds: float,
    generate_seconds: float,
    attempts: int,
    model: str,
) -> image_pb2.Image:
    """A worker's image as the client gets it; see image.proto."""
    return image_pb2.Image(
        data=made.data,
        format=made.format,
        width=made.width,
        height=made.height,
        seed=job.seed,
        skipped_steps=made.skipped_steps,
        similarity=max(0.0, similarity),
        predicted_quality=quality,
        worker=worker,
        queue_seconds=max(0.0, queue_seconds),
        generate_seconds=max(0.0, generate_seconds),
        attempts=attempts,
        model=model,
    )


def worker_request(
    job: Job,
    request_id: str,
    tenant: str,
    option: Option,
    steps: int,
    source_address: str,
    embedding: Vector | None,
    keep_latents: bool,
    fallbacks: Sequence[tuple[Match, str]] = (),
) -> worker_pb2.WorkerGenerateRequest:
    """A job of so many steps as a worker gets it; `source_address` is empty if the latents lie on that worker.

    `fallbacks` are other matches with their addresses likewise. Where no client follows the progress, one word
    of it half way tells the router how fast the worker is.
    """
    request = worker_pb2.WorkerGenerateRequest(
        request_id=request_id,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        width=job.width,
        height=job.height,
        seed=job.seed,
        guidance_scale=job.guidance_scale,
        skipped_steps=option.skipped_steps,
        format=image_pb2.ImageFormat.Name(job.format),
        tenant=tenant,
        embedding=b"" if embedding is None else packed(embedding),
        keep_latents=keep_latents,
        model=option.model,
        preview_steps=job.preview_steps,
        progress_steps=max(1, (steps - option.skipped_steps) // 2) if job.image_only else 0,
    )
    if option.match is not None:
        request.source.CopyFrom(latent_source(option.match, source_address))
        request.fallbacks.extend(latent_source(m, address) for m, address in fallbacks)
    return request


def latent_source(match: Match, address: str) -> worker_pb2.LatentSource:
    """Where a match's latents lie; `address` is empty where they are on the worker that is asked."""
    return worker_pb2.LatentSource(entry_id=match.entry_id, worker=match.worker, address=address)
