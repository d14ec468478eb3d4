"""Pixels to image files, with how they were made written inside; never the prompt."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from typing import Final, Literal

from PIL import Image, PngImagePlugin

ImageFormat = Literal["png", "jpeg", "webp"]

_SOFTWARE: Final = 0x0131
_DESCRIPTION: Final = 0x010E
_KEY: Final = "gesso"


@dataclass(frozen=True)
class Provenance:
    """What an image file tells of its making."""

    model: str
    scheduler: str
    steps: int
    skipped_steps: int
    seed: int
    guidance_scale: float


def encode_image(image: Image.Image, image_format: ImageFormat, provenance: Provenance) -> bytes:
    """The file's bytes; the provenance (JSON) is PNG's text `gesso`, or EXIF's image description."""
    text = json.dumps(asdict(provenance))
    buffer = io.BytesIO()
    if image_format == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Software", "Gesso")
        info.add_text(_KEY, text)
        # Level 6 takes three times as long for a few per cent.
        image.save(buffer, "PNG", pnginfo=info, compress_level=3)
        return buffer.getvalue()
    exif = Image.Exif()
    exif[_SOFTWARE] = "Gesso"
    exif[_DESCRIPTION] = text
    image.save(buffer, image_format.upper(), quality=92, exif=exif)
    return buffer.getvalue()


def read_provenance(image: Image.Image) -> Provenance:
    """What `encode_image` wrote. Raises ValueError for an image that is not Gesso's."""
    text = image.info.get(_KEY) or image.getexif().get(_DESCRIPTION) or ""
    try:
        return Provenance(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError("the image carries no provenance of Gesso") from error
