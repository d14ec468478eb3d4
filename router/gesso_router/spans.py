"""What the spans of a request tell: by OpenTelemetry's conventions where there are any, else `gesso.*`."""

from __future__ import annotations

from opentelemetry.trace import Span

from gesso.api import DiffusionService
from gesso.logs import prompt_hash
from gesso.rpc.v1 import image_pb2
from gesso.tracing import Value
from gesso_router.run import Placement, Run
from gesso_router.validation import Job

#: An image on its way through the router, from admission to its last byte.
IMAGE = "generate_content"
ADMIT = "admit"
EMBED = "embed"
LOOKUP = "lookup"
#: K and worker, with the wait for a turn where the policy has one queue for all.
CHOOSE = "choose"
#: An attempt on a worker, and a question to one shard.
GENERATE_METHOD = "gesso.v1.Worker/Generate"
LOOKUP_METHOD = "gesso.v1.Worker/Lookup"


def asked(span: Span, service: DiffusionService, job: Job) -> None:
    """What a client asked for, at the beginning of its image."""
    if not span.is_recording():
        return
    span.update_name(f"{IMAGE} {service.name}")
    span.set_attributes(
        {
            "gen_ai.operation.name": IMAGE,
            "gen_ai.provider.name": "gesso",
            "gen_ai.output.type": "image",
            "gen_ai.request.model": service.name,
            "gen_ai.request.seed": job.seed,
            "gesso.request_id": job.request_id,
            "gesso.prompt_hash": prompt_hash(job.prompt),
            "gesso.slo_seconds": job.slo_seconds,
            "gesso.min_quality": job.min_quality,
        }
    )


def made(span: Span, image: image_pb2.Image) -> None:
    """What became of it."""
    if not span.is_recording():
        return
    span.set_attributes(
        {
            "gen_ai.response.model": image.model or "own",
            "gesso.skipped_steps": image.skipped_steps,
            "gesso.similarity": image.similarity,
            "gesso.predicted_quality": image.predicted_quality,
            "gesso.worker": image.worker,
            "gesso.attempts": image.attempts,
            "gesso.queue_seconds": image.queue_seconds,
        }
    )


def chosen(span: Span, run: Run, placement: Placement) -> None:
    """K, worker and why."""
    if not span.is_recording():
        return
    option, choice = placement.option, placement.choice
    told: dict[str, Value] = {
        "gesso.skipped_steps": option.skipped_steps,
        "gesso.worker": placement.worker,
        "gesso.model": option.model or "own",
        "gesso.predicted_quality": option.quality,
        "gesso.similarity": run.matches[0].similarity if run.matches else 0.0,
        "gesso.options": len(run.options),
    }
    if option.match is not None:
        told["gesso.source"] = option.match.worker
    if choice is not None:
        told |= {
            "gesso.reason": choice.reason,
            "gesso.price": choice.price.value,
            "gesso.price.source": choice.price.source,
            "gesso.predicted_finish_seconds": choice.finish_seconds,
        }
    span.set_attributes(told)


def dispatched(span: Span, run: Run, placement: Placement) -> None:
    """Which attempt this is, and where."""
    if not span.is_recording():
        return
    span.set_attributes(
        {
            "gesso.worker": placement.worker,
            "gesso.attempt": len(run.failed_on) + len(run.refused_by) + 1,
            "gesso.skipped_steps": placement.option.skipped_steps,
        }
    )
