"""What a request to OpenAI's images API asks for; what is not supported is refused by name, never ignored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.validation import (
    FORMATS,
    HTTP_NAMES,
    MAX_REQUEST_ID,
    MAX_SEED,
    Job,
    Raw,
    invalid,
    validate,
)

MAX_IMAGES = 10
MAX_PARTIAL_IMAGES = 3

#: What OpenAI's models have, and these models have one kind of: that kind may be named.
_ONLY = {"quality": ("auto",), "background": ("auto", "opaque")}
_FIELDS = (
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "output_format",
    "stream",
    "partial_images",
    "user",
    "safety_identifier",
    *_ONLY,
    "seed",
    "slo_ms",
    "min_quality",
    "negative_prompt",
    "guidance_scale",
)


@dataclass(frozen=True)
class ImageRequest:
    """One job for each image, and how they are answered."""

    jobs: tuple[Job, ...]
    by_url: bool = False
    stream: bool = False
    partial_images: int = 0


def parse(body: bytes, router: Router, request_id: str = "") -> ImageRequest:
    """The request in a body, under an id. Raises RequestError (INVALID)."""
    given = _given(body, router)
    names = (router.service.name, router.service.spec.model.source)
    model = _typed(given, "model", str, "a string")
    if model is not None and model not in names:
        raise invalid("model", model, names[0])
    for field, allowed in _ONLY.items():
        _one_of(given, field, allowed)
    stream, partial_images = _streaming(given)
    by_url = _one_of(given, "response_format", ("b64_json", "url")) == "url"
    if by_url and stream:
        raise invalid("response_format", "url", "b64_json with stream")
    n = _typed(given, "n", int, f"1 to {MAX_IMAGES}")
    n = 1 if n is None else n
    most = 1 if stream else MAX_IMAGES
    if not 1 <= n <= most:
        raise invalid("n", n, "1 with stream" if stream else f"1 to {MAX_IMAGES}")
    if "prompt" not in given:
        raise RequestError(Ending.INVALID, "missing", "prompt: missing: required", param="prompt")
    width, height = _size(_typed(given, "size", str, "WIDTHxHEIGHT"))
    slo_ms = _typed(given, "slo_ms", float, "a number of milliseconds")
    user = _typed(given, "user", str, "a string")
    raw = Raw(
        prompt=_typed(given, "prompt", str, "a string") or "",
        request_id=request_id,
        negative_prompt=_typed(given, "negative_prompt", str, "a string") or "",
        width=width,
        height=height,
        seed=_typed(given, "seed", int, f"0 to {MAX_SEED}"),
        guidance_scale=_typed(given, "guidance_scale", float, "a number"),
        slo_seconds=None if slo_ms is None else slo_ms / 1000,
        min_quality=_typed(given, "min_quality", float, "a number from 0 to 1"),
        format=_format(_typed(given, "output_format", str, "png, jpeg or webp")),
        tenant=_typed(given, "safety_identifier", str, "a string") or user or "",
        skipped_steps=_typed(given, "skipped_steps", int, "a level of the ladder"),
        image_only=not stream,
    )
    first = validate(raw, router.service, HTTP_NAMES)
    # Images of one request differ by their seeds; the last of them must be one, too.
    if first.seed > MAX_SEED - (n - 1) and raw.seed is not None:
        raise invalid("seed", raw.seed, f"0 to {MAX_SEED - (n - 1)} with n = {n}")
    if partial_images:
        steps = router.service.spec.model.steps
        first = replace(first, preview_steps=max(1, steps // (partial_images + 1)))
    jobs = tuple(
        replace(first, request_id=name, seed=(first.seed + i) & MAX_SEED)
        for i, name in enumerate(_ids(first.request_id, n))
    )
    return ImageRequest(jobs, by_url, stream, partial_images)


def _ids(request_id: str, n: int) -> list[str]:
    """An id for each of n images, none longer than an id may be."""
    if n == 1:
        return [request_id]
    most = MAX_REQUEST_ID - len(f"-{MAX_IMAGES - 1}")
    if len(request_id) > most:
        # Requests whose ids differ only in what is cut off are told apart all the same.
        digest = hashlib.sha256(request_id.encode()).hexdigest()[:12]
        request_id = f"{request_id[: most - 13]}.{digest}"
    return [f"{request_id}-{i}" for i in range(n)]


def _given(body: bytes, router: Router) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(Ending.INVALID, "invalid_json", "body: not JSON") from None
    if not isinstance(fields, dict):
        raise RequestError(Ending.INVALID, "invalid_json", "body: a JSON object is needed")
    known = (*_FIELDS, "skipped_steps") if router.may_pin else _FIELDS
    for name in fields:
        if name not in known:
            # JSON may hold half of a surrogate pair, which no answer can.
            shown = name[:64].encode("utf-8", "backslashreplace").decode()
            raise RequestError(
                Ending.INVALID,
                "unsupported_parameter",
                f"{shown}: not supported: the parameters are {', '.join(known)}",
                param=shown,
            )
    return {name: value for name, value in fields.items() if value is not None}


def _streaming(given: Mapping[str, Any]) -> tuple[bool, int]:
    stream = given.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid("stream", json.dumps(stream), "true or false")
    allowed = f"0 to {MAX_PARTIAL_IMAGES}"
    partial_images: int = _typed(given, "partial_images", int, allowed) or 0
    if not 0 <= partial_images <= MAX_PARTIAL_IMAGES:
        raise invalid("partial_images", partial_images, allowed)
    if partial_images and not stream:
        raise invalid("partial_images", partial_images, "0 without stream")
    return stream, partial_images


def _typed(fields: Mapping[str, Any], name: str, kind: type, allowed: str) -> Any:
    value = fields.get(name)
    if value is None:
        return None
    right = isinstance(value, (int, float) if kind is float else kind)
    if isinstance(value, bool) or not right:
        raise invalid(name, json.dumps(value), allowed)
    if kind is float:
        try:
            return float(value)
        except OverflowError:  # an integer of hundreds of digits
            raise invalid(name, "a number too large", allowed) from None
    return value


def _one_of(fields: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value: str | None = _typed(fields, name, str, " or ".join(allowed))
    if value not in (None, *allowed):
        raise invalid(name, value, " or ".join(allowed))
    return value


def _size(size: str | None) -> tuple[int, int]:
    if size is None or size == "auto":
        return 0, 0
    width, _, height = size.partition("x")
    # More digits than any image has would only slow the conversion down.
    if not (width.isdecimal() and height.isdecimal() and len(size) <= 11):
        raise invalid("size", size, "WIDTHxHEIGHT in pixels, or auto")
    if not (int(width) and int(height)):
        raise invalid("size", size, "WIDTHxHEIGHT in pixels, each above 0, or auto")
    return int(width), int(height)


def _format(name: str | None) -> int:
    if name is None:
        return 0
    for number, known in FORMATS.items():
        if name == known:
            return number
    raise invalid("output_format", name, "png, jpeg or webp")
