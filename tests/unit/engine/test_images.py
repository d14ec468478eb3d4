"""Image files carry how they were made, and no prompt."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from gesso_worker.engine.images import ImageFormat, Provenance, encode_image, read_provenance

PROVENANCE = Provenance("builtin://tiny-sdxl", "Euler", 50, 10, 2**64 - 1, 2.0)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_provenance_survives_the_file(image_format: ImageFormat) -> None:
    data = encode_image(Image.new("RGB", (64, 48), (200, 30, 30)), image_format, PROVENANCE)
    image = Image.open(io.BytesIO(data))
    assert image.format == image_format.upper()
    assert image.size == (64, 48)
    assert read_provenance(image) == PROVENANCE


def test_png_is_lossless() -> None:
    image = Image.effect_noise((32, 32), 80).convert("RGB")
    made = Image.open(io.BytesIO(encode_image(image, "png", PROVENANCE)))
    assert made.tobytes() == image.tobytes()


def test_an_image_of_another_maker_has_no_provenance() -> None:
    with pytest.raises(ValueError, match="no provenance"):
        read_provenance(Image.new("RGB", (8, 8)))
