"""Renders a scene to 64x64 pixels with signed distance functions (numpy only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from gesso_worker.models.tiny.scenes import Scene, Thing

Array = np.ndarray[Any, np.dtype[np.float32]]

SIDE: Final = 64
PALETTE: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 40, 40),
    "orange": (243, 139, 28),
    "yellow": (247, 225, 55),
    "green": (38, 158, 70),
    "blue": (42, 86, 220),
    "purple": (146, 60, 186),
    "white": (246, 246, 246),
    "black": (24, 24, 26),
}
#: Radius in pixels by size; scenes of several alike have one of their own by count.
RADII: Final = {"small": 9.5, "large": 15.0}
COUNT_RADII: Final = {"two": 13.0, "three": 12.0, "four": 12.0}
NEAR, MIDDLE, FAR = 18.0, 32.0, 46.0
#: Centres (x, y) in pixels by layout.
CENTRES: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "centre": ((MIDDLE, MIDDLE),),
    "left": ((NEAR, MIDDLE),),
    "right": ((FAR, MIDDLE),),
    "top": ((MIDDLE, NEAR),),
    "bottom": ((MIDDLE, FAR),),
    "top left": ((NEAR, NEAR),),
    "top right": ((FAR, NEAR),),
    "bottom left": ((NEAR, FAR),),
    "bottom right": ((FAR, FAR),),
    "horizontal": ((17.0, MIDDLE), (47.0, MIDDLE)),
    "vertical": ((MIDDLE, 17.0), (MIDDLE, 47.0)),
    "two": ((18.0, 18.0), (46.0, 46.0)),
    "three": ((32.0, 17.0), (17.0, 46.0), (47.0, 46.0)),
    "four": ((17.0, 17.0), (47.0, 17.0), (17.0, 47.0), (47.0, 47.0)),
}

_YS, _XS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + np.float32(0.5)


def _polygon(x: Array, y: Array, corners: Array) -> Array:
    """Signed distance to a polygon, in pixels (negative inside); corners of shape (n, 2)."""
    best = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        best = np.minimum(best, (px - ex * along) ** 2 + (py - ey * along) ** 2)
        crosses = (ay > y) != (by > y)
        if ey != 0:
            inside ^= crosses & (px < ex * py / ey)
    return np.where(inside, -1.0, 1.0).astype(np.float32) * np.sqrt(best)


def _box(x: Array, y: Array, width: float, height: float) -> Array:
    dx, dy = np.abs(x) - width, np.abs(y) - height
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0), dtype=np.float32)


def _regular(points: int, outer: float, inner: float | None = None) -> Array:
    radii = [outer] if inner is None else [outer, inner]
    n = points * len(radii)
    angle = -np.pi / 2 + np.arange(n) * 2 * np.pi / n
    radius = np.resize(radii, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def distance(shape: str, x: Array, y: Array, r: float) -> Array:
    """Signed distance in pixels to a shape of radius ``r`` at the origin; y points down."""
    if shape == "circle":
        return np.hypot(x, y) - np.float32(0.94 * r)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - np.float32(0.73 * r)) - np.float32(0.25 * r)
    if shape == "square":
        return _box(x, y, 0.84 * r, 0.84 * r)
    if shape == "cross":
        return np.minimum(_box(x, y, r, 0.33 * r), _box(x, y, 0.33 * r, r))
    if shape == "triangle":
        return _polygon(x, y - np.float32(0.22 * r), _regular(3, 1.18 * r))
    return _polygon(x, y - np.float32(0.06 * r), _regular(5, 1.12 * r, 0.46 * r))


def _tint(rgb: Array, factor: float, towards: float = 0.0) -> Array:
    return rgb * np.float32(factor) + np.float32(towards * (1 - factor))


def _background(colour: str, style: str, rgb: Array) -> Array:
    """Background of shape (64, 64, 3): plain, darker towards the bottom, or bright in the middle."""
    if style == "plain":
        return np.broadcast_to(rgb, (SIDE, SIDE, 3)).astype(np.float32)
    black = colour == "black"
    if style == "gradient":
        end = _tint(rgb, 0.45, 255.0 if black else 0.0)
        t = (_YS / SIDE)[..., None]
        return np.asarray(rgb * (1 - t) + end * t, dtype=np.float32)
    edge = rgb if black else _tint(rgb, 0.5)
    core = _tint(rgb, 0.5 if black else 0.75, 255.0)
    t = np.clip(np.hypot(_XS - SIDE / 2, _YS - SIDE / 2) / 40.0, 0, 1)[..., None] ** 1.5
    return np.asarray(core * (1 - t) + edge * t, dtype=np.float32)


def _paint(image: Array, thing: Thing, cx: float, cy: float, r: float, rgb: Array) -> None:
    """Draws one thing into the image, anti-aliased, striped with bands relative to its radius."""
    x0, x1 = max(0, int(cx - 1.3 * r - 1)), min(SIDE, int(cx + 1.3 * r + 2))
    y0, y1 = max(0, int(cy - 1.3 * r - 1)), min(SIDE, int(cy + 1.3 * r + 2))
    x, y = _XS[y0:y1, x0:x1] - np.float32(cx), _YS[y0:y1, x0:x1] - np.float32(cy)
    cover = np.clip(0.5 - distance(thing.shape, x, y, r), 0, 1)[..., None]
    paint: Array = np.broadcast_to(rgb, (*x.shape, 3)).astype(np.float32)
    if thing.texture == "striped":
        period = np.float32(0.9 * r)
        # Distance in pixels to the border of a band, so that bands are anti-aliased as well.
        phase = np.abs((y / period + np.float32(0.5)) % 1.0 - np.float32(0.5)) * period
        band = np.clip(0.5 + (phase - np.float32(0.25) * period), 0, 1)[..., None]
        other = _tint(rgb, 0.5, 255.0) if thing.colour == "black" else _tint(rgb, 0.45)
        paint = paint * (1 - band) + other * band
    patch = image[y0:y1, x0:x1]
    patch += (paint - patch) * cover


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The scene as pixels, uint8 of shape (64, 64, 3); ``rng`` draws position, size and colour jitter."""

    def colour(name: str) -> Array:
        jitter = rng.uniform(-8, 8, 3)
        return np.clip(np.asarray(PALETTE[name]) + jitter, 0, 255).astype(np.float32)

    image = _background(scene.background, scene.style, colour(scene.background)).copy()
    tints = [colour(thing.colour) for thing in scene.things]
    for i, (cx, cy) in enumerate(CENTRES[scene.layout]):
        index = i if scene.is_pair else 0
        thing = scene.things[index]
        r = COUNT_RADII[scene.layout] if scene.is_count else RADII[thing.size]
        r *= float(rng.uniform(0.95, 1.05))
        dx, dy = rng.uniform(-1.3, 1.3, 2)
        _paint(image, thing, cx + float(dx), cy + float(dy), r, tints[index])
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return pixels
