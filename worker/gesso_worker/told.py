"""What a worker tells of a request: a line in the log, and its spans in the router's trace."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from opentelemetry.trace import INVALID_SPAN, Span

from gesso import logs
from gesso.tracing import Metadata, Tracing, Value, carrier_of, failed, rpc, trace_id
from gesso_worker.engine import Failed, Job
from gesso_worker.engine.job import Mark, Stage
from gesso_worker.requests import GenerateSpec

logger = logging.getLogger(__name__)

METHOD = "gesso.v1.Worker/Generate"
#: Of metadata: the id of the client's request. Each attempt has one of its own in the message.
REQUEST_ID = "x-request-id"
_LONGEST_ID = 256


class Told:
    """Of one request; `end` it."""

    def __init__(self, tracing: Tracing, span: Span, spec: GenerateSpec) -> None:
        """See `of`."""
        self._tracing = tracing
        self._span = span
        self._spec = spec
        self._failure = ""

    @classmethod
    def of(
        cls, tracing: Tracing, spec: GenerateSpec, worker: str, metadata: Metadata | None
    ) -> Self:
        """Begins the span, and has this task's log lines be about the request."""
        found = dict(metadata or ())
        told: dict[str, Value] = {
            **rpc(METHOD),
            "gesso.worker": worker,
            "gesso.request_id": _request_of(found, spec),
            "gesso.prompt_hash": logs.prompt_hash(spec.prompt),
        }
        span = tracing.begin(METHOD, carrier_of(found.items()), told)
        hidden = tuple(text for text in (spec.prompt, spec.negative_prompt) if text)
        logs.begin(logs.Subject(_request_of(found, spec), trace_id(span), hidden))
        return cls(tracing, span, spec)

    def fetching(self) -> AbstractContextManager[Span]:
        """The search for where to start, peers included."""
        if not self._spec.skipped_steps or self._spec.source is None:
            return nullcontext(INVALID_SPAN)
        return self._tracing.part_of(self._span, "fetch")

    def failed(self, event: Failed) -> None:
        """An image of it failed."""
        self._failure = event.reason.value

    def end(self, jobs: Sequence[Job], images: int) -> None:
        """It is over, with so many images of those that were begun."""
        if images < len(jobs) or not jobs:
            self._failure = self._failure or ("cancelled" if jobs else "refused")
        self._log(jobs)
        if self._failure:
            failed(self._span, self._failure)
        if self._span.is_recording():
            # The engine's clock counts from the machine's start.
            offset_ns = time.time_ns() - time.monotonic_ns()
            for job in jobs:
                for mark in tuple(job.marks):
                    self._record(job, mark, offset_ns)
        self._span.end()

    def _log(self, jobs: Sequence[Job]) -> None:
        spec = self._spec
        fields: dict[str, object] = {"attempt": spec.request_id}
        if self._failure:
            hashed = logs.prompt_hash(spec.prompt)
            logger.info(
                "no image", extra={**fields, "prompt_hash": hashed, "reason": self._failure}
            )
            return
        first = jobs[0]
        fields |= {
            "skipped_steps": first.start.skipped_steps,
            "queue_seconds": round(first.timings.queue, 4),
            "fetch_seconds": round(first.timings.fetch, 4),
            "denoise_seconds": round(first.timings.denoise, 4),
            "decode_seconds": round(first.timings.decode, 4),
        }
        logger.info("image", extra=fields)

    def _record(self, job: Job, mark: Mark, offset_ns: int) -> None:
        told: dict[str, Value] = {}
        if mark.name == "queue":
            told["gesso.before"] = mark.stage.value
        if mark.stage is Stage.DENOISING and mark.name == "denoise":
            told |= {
                "gesso.steps": mark.steps,
                "gesso.skipped_steps": job.start.skipped_steps,
                "gesso.batch.mean": mark.batch,
            }
        if mark.failed:
            told["error.type"] = self._failure
        began, ended = (int(s * 1e9) + offset_ns for s in (mark.began_s, mark.ended_s))
        self._tracing.record(mark.name, self._span, began, ended, told)


def _request_of(metadata: dict[str, str | bytes], spec: GenerateSpec) -> str:
    given = metadata.get(REQUEST_ID)
    if isinstance(given, str) and 0 < len(given) <= _LONGEST_ID and given.isprintable():
        return given
    return spec.request_id
