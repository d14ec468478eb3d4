"""`gesso generate`: one prompt to a service that is up, and the image to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gesso.cli.console import EXIT_USAGE, CliError, err, say

_MIB = 1024 * 1024
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Wish:
    """What the user asks for; None leaves it to the service."""

    prompt: str
    output: Path
    negative: str = ""
    seed: int | None = None
    slo_seconds: float | None = None
    min_quality: float | None = None
    guidance: float | None = None
    image_format: str | None = None


def generate(wish: Wish, target: str, timeout_s: float) -> None:
    """Sends the prompt to the router at `target` (host:port), writes the image, prints one line about it."""
    image_format = format_of(wish)
    if not wish.output.parent.is_dir():
        raise CliError(
            f"-o {wish.output}: the folder {wish.output.parent} does not exist", EXIT_USAGE
        )
    # Imported here: gRPC takes longer to import than `gesso validate` takes in all.
    import grpc

    from gesso.rpc.v1 import image_pb2, image_pb2_grpc

    fields = {
        "seed": wish.seed,
        "slo_seconds": wish.slo_seconds,
        "min_quality": wish.min_quality,
        "guidance_scale": wish.guidance,
    }
    try:
        request = image_pb2.GenerateRequest(
            prompt=wish.prompt,
            negative_prompt=wish.negative,
            format=f"IMAGE_FORMAT_{image_format}",
            **{k: v for k, v in fields.items() if v is not None},  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise CliError(f"the request cannot be sent: {error}", EXIT_USAGE) from None
    options = [("grpc.max_receive_message_length", 64 * _MIB), ("grpc.enable_http_proxy", 0)]
    image = None
    try:
        with grpc.insecure_channel(target, options=options) as channel:
            stub = image_pb2_grpc.ImageServiceStub(channel)
            with err.status("waiting") as spinner:
                for event in stub.Generate(request, timeout=timeout_s):
                    kind = event.WhichOneof("event")
                    if kind == "started":
                        spinner.update(f"{event.started.worker} K={event.started.skipped_steps}")
                    elif kind == "progress":
                        spinner.update(f"step {event.progress.step} of {event.progress.steps}")
                    elif kind == "image":
                        image = event.image
    except grpc.RpcError as error:
        usage = error.code() is grpc.StatusCode.INVALID_ARGUMENT
        raise CliError(_rpc_text(error, target), EXIT_USAGE if usage else 1) from None
    if image is None:
        raise CliError(f"the router at {target} ended the call without an image")
    try:
        wish.output.write_bytes(image.data)
    except OSError as error:
        raise CliError(f"-o {wish.output}: {error.strerror or error}") from None
    retried = f", {image.attempts} attempts" if image.attempts > 1 else ""
    say(
        f"{wish.output}: {image.width}x{image.height}, K={image.skipped_steps}, "
        f"similarity {image.similarity:.3f}, predicted quality {image.predicted_quality:.3f}, "
        f"{image.worker}, waited {image.queue_seconds:.2f} s, "
        f"generated in {image.generate_seconds:.2f} s, seed {image.seed}{retried}"
    )


def format_of(wish: Wish) -> str:
    """PNG, JPEG or WEBP: as asked, else by the file's suffix. Raises CliError for any other."""
    if wish.image_format is not None:
        chosen = wish.image_format.upper().replace("JPG", "JPEG")
        if chosen not in _SUFFIXES.values():
            raise CliError(
                f"--format {wish.image_format!r} is not allowed: png, jpeg, webp", EXIT_USAGE
            )
        return chosen
    suffix = wish.output.suffix.lower()
    if suffix not in _SUFFIXES:
        allowed = ", ".join(_SUFFIXES)
        raise CliError(
            f"-o {wish.output}: suffix {suffix!r} is not allowed: {allowed} (or give --format)",
            EXIT_USAGE,
        )
    return _SUFFIXES[suffix]


def _rpc_text(error: object, target: str) -> str:
    code = getattr(error, "code", lambda: None)()
    details = str(getattr(error, "details", lambda: "")() or "no details")
    name = getattr(code, "name", "UNKNOWN")
    if name == "UNAVAILABLE" and "connect" in details.lower():
        return f"no router answers at {target}"
    if name == "DEADLINE_EXCEEDED" and details == "Deadline Exceeded":
        return "no image within the time given by --timeout"
    metadata = dict(getattr(error, "trailing_metadata", lambda: ())() or ())
    retry = metadata.get("retry-after-ms")
    return f"{name}: {details}{f' (retry after {retry} ms)' if retry else ''}"
