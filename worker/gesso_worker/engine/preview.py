"""Previews: a linear projection of latents to colours, which costs next to nothing beside decoding them.

Each latent pixel's channels make one pixel: `rgb = latents @ weights + bias`, fitted by least squares to images
that the VAE has decoded, scaled down to the latents' size. The normal equations are summed up, so that every
image that is made refines the fit, and no number has to be known of a model beforehand.
"""

from __future__ import annotations

import io
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

#: Images after whose decoding there is nothing more to learn.
ENOUGH = 64
#: Of the mean square of the channels: few pixels of one colour must not make wild weights.
_RIDGE = 1e-3


class LatentProjection:
    """Learns from decoded images in one thread, and projects in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._square: NDArray[np.float64] | None = None
        self._product: NDArray[np.float64] | None = None
        self._weights: NDArray[np.float64] | None = None
        self.images = 0

    def observe(self, latents: Tensor, image: Image.Image) -> None:
        """An image and the latents (1, C, H, W) that it was decoded from; after ENOUGH nothing is done."""
        if self.images >= ENOUGH:
            return
        rows = _rows(latents)
        height, width = latents.shape[-2:]
        small = image.convert("RGB").resize((width, height), Image.Resampling.BOX)
        colours = np.asarray(small, dtype=np.float64).reshape(-1, 3)
        square, product = rows.T @ rows, rows.T @ colours
        with self._lock:
            self._square = square if self._square is None else self._square + square
            self._product = product if self._product is None else self._product + product
            ridge = _RIDGE * np.trace(self._square) / len(self._square) * np.eye(len(self._square))
            ridge[-1, -1] = 0  # the bias is free
            self._weights = np.linalg.lstsq(self._square + ridge, self._product, rcond=None)[0]
            self.images += 1

    def preview(self, denoised: Tensor) -> bytes:
        """A JPEG of a denoised sample (1, C, H, W), a pixel for each of its; empty before the first image."""
        with self._lock:
            weights = self._weights
        if weights is None:
            return b""
        height, width = denoised.shape[-2:]
        colours = np.nan_to_num(_rows(denoised) @ weights).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        picture = Image.fromarray(colours.reshape(height, width, 3))
        picture.save(buffer, "JPEG", quality=85, subsampling=0)
        return buffer.getvalue()


def _rows(latents: Tensor) -> NDArray[np.float64]:
    """A row for each latent pixel: its channels, then 1."""
    channels = latents.shape[1]
    flat = latents[0].to("cpu", torch.float64).reshape(channels, -1).T.numpy()
    return np.hstack([flat, np.ones((len(flat), 1))])
