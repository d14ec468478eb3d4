"""Stage ``latents``: the latent space in closed form, so that the denoiser can train before the VAE exists.

Principal components of 8x8x3 patches, each scaled by its standard deviation to the power -0.5
(large components keep some of their weight), then all by one factor to a standard deviation of 1.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gesso_worker.models.tiny import architecture
from gesso_worker.models.tiny.train import common, data

PATCH: Final = architecture.IMAGE_SIDE // architecture.LATENT_SIDE


def patches(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images uint8 (n, 64, 64, 3) as rows of float32 in -1..1, of shape (n * 64, 192)."""
    side, n = architecture.LATENT_SIDE, len(images)
    x = images.reshape(n, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, PATCH * PATCH * 3).astype(np.float32) / 127.5 - 1.0


def run(options: common.Options) -> None:
    """Fit the components on part of the set, then keep the latents of every image as float16 (n, 16, 8, 8)."""
    dataset = data.load(options.work)
    sample = patches(np.asarray(dataset.images[:12_000]))
    mean = sample.mean(0)
    centred = sample - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(variances)[::-1]
    variances, vectors = variances[order], vectors[:, order]
    for n in (8, 12, 16, 20):
        psnr = 10 * np.log10(4 / (variances[n:].sum() / len(mean)))
        print(f"{n} components: {psnr:.1f} dB linear")
    kept = architecture.LATENT_CHANNELS
    # A fixed sign, so that the space does not depend on the linear algebra library.
    basis = vectors[:, :kept] * np.sign(
        vectors[np.abs(vectors[:, :kept]).argmax(0), np.arange(kept)]
    )
    basis = basis * variances[:kept] ** -0.25
    basis /= np.sqrt(((centred @ basis) ** 2).mean())
    np.savez(options.work / "pca.npz", mean=mean, basis=basis.astype(np.float32))
    n = len(dataset.images)
    out = np.lib.format.open_memmap(
        options.work / "data" / "latents.npy", mode="w+", dtype=np.float16, shape=(n, kept, 8, 8)
    )
    size = 1000
    for step, _ in common.loop("latents", 0, -(-n // size)):
        part = slice(step * size, (step + 1) * size)
        flat = (patches(np.asarray(dataset.images[part])) - mean) @ basis
        out[part] = flat.reshape(-1, 8, 8, kept).transpose(0, 3, 1, 2)
    out.flush()
    print(
        "standard deviation by component:",
        np.round(np.asarray(out[:2000], np.float32).std((0, 2, 3)), 2),
    )
