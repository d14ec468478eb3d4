"""`gesso generate`: one prompt to a service that is up, and the image to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gesso.api_key import OPTION, key_of
from gesso.cli.console import EXIT_USAGE, CliError, err, say

if TYPE_CHECKING:
    from gesso.client.request import Format

_SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}


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


@dataclass(frozen=True)
class Door:
    """How the router is talked to: an API key, TLS, and whom to trust (a PEM file; None: the system's)."""

    api_key: str | None = None
    tls: bool = False
    authority: Path | None = None


def generate(wish: Wish, target: str, timeout_s: float, door: Door = Door()) -> None:
    """Sends the prompt to the router at `target` (host:port), writes the image, prints one line about it."""
    image_format = format_of(wish)
    if not wish.output.parent.is_dir():
        raise CliError(
            f"-o {wish.output}: the folder {wish.output.parent} does not exist", EXIT_USAGE
        )
    try:
        api_key = key_of(door.api_key, OPTION)
    except ValueError as error:
        raise CliError(str(error), EXIT_USAGE) from None
    # Imported here: gRPC takes longer to import than `gesso validate` takes in all.
    from gesso.client import Client, GenerateError, InvalidRequestError, Progress
    from gesso.client import Wish as Asked

    try:
        asked = Asked(
            wish.prompt,
            negative_prompt=wish.negative,
            seed=wish.seed,
            guidance_scale=wish.guidance,
            slo_seconds=wish.slo_seconds,
            min_quality=wish.min_quality,
            format=image_format,
        )
        asked.as_message()
    except ValueError as error:
        raise CliError(f"the request cannot be sent: {error}", EXIT_USAGE) from None
    authority = None if door.authority is None else _read(door.authority)
    try:
        with (
            Client(target, api_key=api_key, tls=door.tls, authority=authority) as client,
            err.status("waiting") as spinner,
        ):

            def tell(now: Progress) -> None:
                if now.steps:
                    spinner.update(f"step {now.step} of {now.steps}")
                elif now.worker:
                    spinner.update(f"{now.worker} K={now.skipped_steps}")

            image = client.generate(asked, timeout_seconds=timeout_s, on_progress=tell)
    except GenerateError as error:
        usage = isinstance(error, InvalidRequestError)
        told = _rpc_text(error.__cause__ or error, target)
        raise CliError(told, EXIT_USAGE if usage else 1) from None
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CliError(f"--ca {path}: {error.strerror or error}", EXIT_USAGE) from None


def format_of(wish: Wish) -> Format:
    """png, jpeg or webp: as asked, else by the file's suffix. Raises CliError for any other."""
    if wish.image_format is not None:
        chosen = _SUFFIXES.get(f".{wish.image_format.lower()}")
        if chosen is None:
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
