"""What a well-formed request is, for both front doors: raw values in, a frozen `Job` or a clear refusal out."""

from __future__ import annotations

import math
import re
import secrets
import uuid
from dataclasses import dataclass

from gesso.api import DiffusionService
from gesso_router.errors import Ending, RequestError

MAX_PROMPT_BYTES = 4096
MAX_SEED = 2**63 - 1
MAX_REQUEST_ID = 128
MAX_TENANT_BYTES = 128
MAX_SLO_SECONDS = 3600.0
MAX_GUIDANCE_SCALE = 50.0
FORMATS = {1: "png", 2: "jpeg", 3: "webp"}  # ImageFormat on the wire

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_REQUEST_ID}}}\Z")


@dataclass(frozen=True)
class Raw:
    """A request as it came in; None where the client said nothing. Sizes in pixels, `format` as ImageFormat."""

    prompt: str
    request_id: str = ""
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    seed: int | None = None
    guidance_scale: float | None = None
    slo_seconds: float | None = None
    min_quality: float | None = None
    format: int = 0
    tenant: str = ""
    skipped_steps: int | None = None
    image_only: bool = False


@dataclass(frozen=True)
class Job:
    """A well-formed request, every default filled in but `guidance_scale` (None: the service's)."""

    request_id: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    guidance_scale: float | None
    slo_seconds: float
    min_quality: float
    format: int
    tenant: str
    #: Denoising steps between two previews of the image; 0: none.
    preview_steps: int = 0
    #: The K that it must be served at, whatever the policy; None: the policy's choice.
    skipped_steps: int | None = None
    #: Who pays for it, see `access`: requests of different owners share the queue fairly.
    owner: str = ""
    #: Whether its client wants no events but the image.
    image_only: bool = False


@dataclass(frozen=True)
class FieldNames:
    """What the fields are called at a front door, so that a message names what the client wrote."""

    slo: str = "slo_seconds"
    slo_scale: float = 1.0  # units of the client's field per second
    format: str = "format"
    tenant: str = "tenant"
    size: str | None = None  # set: one field for width and height


GRPC_NAMES = FieldNames()
HTTP_NAMES = FieldNames(
    slo="slo_ms", slo_scale=1000.0, format="output_format", tenant="user", size="size"
)


def check_request_id(field: str, name: str) -> None:
    """Raises RequestError (INVALID) on what cannot be the id of a request."""
    if not _REQUEST_ID.match(name):
        raise invalid(field, name, f"1 to {MAX_REQUEST_ID} of A-Z a-z 0-9 . _ : -")


def request_id_of(given: str | None) -> str:
    """The id of a request that came with this one, if it can be one; else a new one."""
    return given if given and _REQUEST_ID.match(given) else uuid.uuid4().hex


def invalid(field: str, value: object, allowed: str) -> RequestError:
    """A refusal that names the field, its value and what is allowed."""
    shown = repr(value) if isinstance(value, str) else f"{value}"
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return RequestError(
        Ending.INVALID, "invalid_value", f"{field}: {shown} is not allowed: {allowed}", param=field
    )


def validate(raw: Raw, service: DiffusionService, names: FieldNames = GRPC_NAMES) -> Job:
    """The job of a request. Raises RequestError (INVALID) on the first field that is not allowed."""
    model = service.spec.model
    if raw.request_id:
        check_request_id("request_id", raw.request_id)
    _text("prompt", raw.prompt, empty=False)
    _text("negative_prompt", raw.negative_prompt, empty=True)
    width, height = raw.width or model.width, raw.height or model.height
    if (width, height) != (model.width, model.height):
        allowed = f"{model.width}x{model.height}, the size that this service makes"
        if names.size:
            raise invalid(names.size, f"{raw.width}x{raw.height}", allowed)
        at_fault = "width" if width != model.width else "height"
        raise invalid(at_fault, width if at_fault == "width" else height, allowed)
    if raw.seed is not None and not 0 <= raw.seed <= MAX_SEED:
        raise invalid("seed", raw.seed, f"0 to {MAX_SEED}")
    _range("guidance_scale", raw.guidance_scale, 0.0, MAX_GUIDANCE_SCALE)
    _range("min_quality", raw.min_quality, 0.0, 1.0)
    if raw.slo_seconds is not None and not 0 < raw.slo_seconds <= MAX_SLO_SECONDS:
        raise invalid(
            names.slo,
            f"{raw.slo_seconds * names.slo_scale:g}",
            f"above 0, at most {MAX_SLO_SECONDS * names.slo_scale:g}",
        )
    if raw.format and raw.format not in FORMATS:
        raise invalid(names.format, raw.format, "1 (PNG), 2 (JPEG) or 3 (WEBP)")
    if len(raw.tenant.encode("utf-8", "surrogatepass")) > MAX_TENANT_BYTES or not (
        raw.tenant == "" or raw.tenant.isprintable()
    ):
        raise invalid(names.tenant, raw.tenant, f"at most {MAX_TENANT_BYTES} bytes, printable")
    if raw.skipped_steps is not None and raw.skipped_steps not in service.ladder:
        raise invalid(
            "skipped_steps", raw.skipped_steps, f"one of {', '.join(map(str, service.ladder))}"
        )
    return Job(
        image_only=raw.image_only,
        request_id=raw.request_id or uuid.uuid4().hex,
        prompt=raw.prompt,
        negative_prompt=raw.negative_prompt,
        width=width,
        height=height,
        seed=secrets.randbelow(MAX_SEED + 1) if raw.seed is None else raw.seed,
        guidance_scale=raw.guidance_scale,
        slo_seconds=service.spec.slo.latency_seconds
        if raw.slo_seconds is None
        else raw.slo_seconds,
        min_quality=(
            service.spec.slo.min_relative_quality if raw.min_quality is None else raw.min_quality
        ),
        format=raw.format or 1,
        tenant=raw.tenant,
        skipped_steps=raw.skipped_steps,
    )


def _text(field: str, text: str, *, empty: bool) -> None:
    allowed = f"{'at most' if empty else '1 to'} {MAX_PROMPT_BYTES} bytes of UTF-8"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise invalid(field, "text with a lone surrogate", allowed) from None
    if size > MAX_PROMPT_BYTES:
        # The text itself stays out of messages: they end up in logs.
        raise RequestError(
            Ending.INVALID,
            "invalid_value",
            f"{field}: {size} bytes is not allowed: {allowed}",
            param=field,
        )
    if not empty and not text.strip():
        raise RequestError(
            Ending.INVALID,
            "invalid_value",
            f"{field}: empty is not allowed: {allowed}",
            param=field,
        )


def _range(field: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise invalid(field, value, f"{low:g} to {high:g}")
