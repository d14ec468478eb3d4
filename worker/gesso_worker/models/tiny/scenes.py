"""Scene grammar of the tiny SD-XL: what a scene is, how one is drawn at random and how one is changed.

numpy only. How a scene is told and drawn lies in `captions` and `renderer`.

A scene holds *concrete* values for everything, and says in ``stated`` which of them its caption
must tell. What a caption leaves unstated is free: sampled at random for training, never scored.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

SHAPES: Final = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
SIZES: Final = ("small", "large")
TEXTURES: Final = ("plain", "striped")
STYLES: Final = ("plain", "gradient", "spotlight")
SINGLES: Final = (
    "centre",
    "left",
    "right",
    "top",
    "bottom",
    "top left",
    "top right",
    "bottom left",
    "bottom right",
)
PAIRS: Final = ("horizontal", "vertical")
COUNTS: Final = ("two", "three", "four")
LAYOUTS: Final = SINGLES + PAIRS + COUNTS
KINDS: Final = ("shape", "colour", "size", "texture", "layout", "background", "style")

#: Every attribute that a caption can state, with its values; ``shape1`` and the like: pairs only.
SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "shape0": SHAPES,
    "colour0": COLOURS,
    "size0": SIZES,
    "texture0": TEXTURES,
    "shape1": SHAPES,
    "colour1": COLOURS,
    "size1": SIZES,
    "texture1": TEXTURES,
    "layout": LAYOUTS,
    "background": COLOURS,
    "style": STYLES,
}

#: One scene in this many is held out: never trained on, by a hash of what its caption states.
HELD_OUT_OF: Final = 16


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene (in a scene of several alike, the pattern of all of them)."""

    shape: str
    colour: str
    size: str = "large"
    texture: str = "plain"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture in words: one thing, a pair of different things, or two to four alike.

    In a pair, ``things[0]`` is the left or the upper one, whatever order the caption names them in.
    ``stated`` holds names of :data:`SLOTS`; ``size0`` means nothing in scenes of several alike.
    """

    things: tuple[Thing, ...]
    layout: str
    background: str
    style: str
    stated: frozenset[str]

    @property
    def is_pair(self) -> bool:
        """Whether the scene holds two different things."""
        return len(self.things) == 2

    @property
    def is_count(self) -> bool:
        """Whether the scene holds two to four things alike."""
        return self.layout in COUNTS


def values(scene: Scene) -> dict[str, str]:
    """Concrete value of every slot that exists in the scene."""
    out: dict[str, str] = {}
    for i, thing in enumerate(scene.things):
        out[f"shape{i}"] = thing.shape
        out[f"colour{i}"] = thing.colour
        if not scene.is_count:
            out[f"size{i}"] = thing.size
        out[f"texture{i}"] = thing.texture
    out.update(layout=scene.layout, background=scene.background, style=scene.style)
    return out


def stated_values(scene: Scene) -> dict[str, str]:
    """Value of every slot that the scene's caption states, in the order of :data:`SLOTS`."""
    return {slot: value for slot, value in values(scene).items() if slot in scene.stated}


def is_held_out(scene: Scene) -> bool:
    """Whether training must not see the scene; equal for all scenes that state the same."""
    return zlib.crc32(repr(sorted(stated_values(scene).items())).encode()) % HELD_OUT_OF == 0


def sample_scene(rng: np.random.Generator, held_out: bool | None = None) -> Scene:
    """Draw a scene; ``held_out`` restricts the draw to held-out scenes or to the others."""
    while True:
        scene = _sample(rng)
        if held_out is None or is_held_out(scene) == held_out:
            return scene


def _pick(rng: np.random.Generator, options: Sequence[str], but: Sequence[str] = ()) -> str:
    left = [option for option in options if option not in but]
    return left[int(rng.integers(len(left)))]


def _sample(rng: np.random.Generator) -> Scene:
    background = _pick(rng, COLOURS)
    style = _pick(rng, STYLES)
    kind = rng.random()
    count = 2 if kind < 0.42 else 1
    things: list[Thing] = []
    while len(things) < count:
        thing = Thing(
            shape=_pick(rng, SHAPES),
            colour=_pick(rng, COLOURS, (background,)),
            size=_pick(rng, SIZES),
            texture="striped" if rng.random() < 0.3 else "plain",
        )
        if all((t.shape, t.colour) != (thing.shape, thing.colour) for t in things):
            things.append(thing)
    stated = {f"{slot}{i}" for i in range(count) for slot in ("shape", "colour", "texture")}
    if count == 2:
        layout = _pick(rng, PAIRS)
        stated.add("layout")
    elif kind < 0.62:
        layout = _pick(rng, COUNTS)
        things[0] = replace(things[0], size="large")
        stated.add("layout")
    else:
        layout = _pick(rng, SINGLES)
        if rng.random() < 0.8:
            stated.add("layout")
    if layout not in COUNTS:
        stated |= {f"size{i}" for i in range(count) if rng.random() < 0.7}
    if rng.random() < 0.8:
        stated.add("background")
    if rng.random() < 0.55:
        stated.add("style")
    return Scene(tuple(things), layout, background, style, frozenset(stated))


def applicable_kinds(scene: Scene) -> tuple[str, ...]:
    """Kinds of change that :func:`mutate` can make (several alike have no size)."""
    return tuple(kind for kind in KINDS if kind != "size" or not scene.is_count)


def mutate(
    scene: Scene, rng: np.random.Generator, changes: int = 1, kind: str | None = None
) -> Scene:
    """A scene that differs from ``scene`` in ``changes`` attributes, which its caption then states.

    ``kind`` fixes what changes (all of them, if ``changes`` is larger than one); else the kinds are
    drawn, all different. Raises :class:`ValueError` for a kind that is not in
    :func:`applicable_kinds`.
    """
    options = applicable_kinds(scene)
    if kind is not None and kind not in options:
        raise ValueError(
            f"a change of {kind!r} does not apply to this scene; one of {options} does"
        )
    if kind is None:
        kinds = [str(k) for k in rng.permutation(options)[: max(1, changes)]]
        # A change of layout may take the size away, so sizes come first.
        kinds.sort(key=lambda k: k != "size")
    else:
        kinds = [kind] * max(1, changes)
    start = values(scene)
    for _ in range(64):
        out = scene
        for each in kinds:
            out = _change(out, rng, each)
        if values(out) != start:
            return out
    raise ValueError(f"no change of {kinds} was found")  # pragma: no cover - needs 64 unlucky draws


def _change(scene: Scene, rng: np.random.Generator, kind: str) -> Scene:
    stated = set(scene.stated)
    if kind == "background":
        colours = [thing.colour for thing in scene.things]
        background = _pick(rng, COLOURS, (scene.background, *colours))
        return replace(scene, background=background, stated=frozenset(stated | {"background"}))
    if kind == "style":
        style = _pick(rng, STYLES, (scene.style,))
        return replace(scene, style=style, stated=frozenset(stated | {"style"}))
    if kind == "layout":
        return _change_layout(scene, rng)
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    others = [t for i, t in enumerate(scene.things) if i != index]
    if kind == "shape":
        taken = [t.shape for t in others if t.colour == thing.colour]
        new = replace(thing, shape=_pick(rng, SHAPES, (thing.shape, *taken)))
    elif kind == "colour":
        taken = [t.colour for t in others if t.shape == thing.shape]
        new = replace(thing, colour=_pick(rng, COLOURS, (thing.colour, scene.background, *taken)))
    elif kind == "size":
        new = replace(thing, size=_pick(rng, SIZES, (thing.size,)))
        stated.add(f"size{index}")
    else:
        new = replace(thing, texture=_pick(rng, TEXTURES, (thing.texture,)))
    things = tuple(new if i == index else t for i, t in enumerate(scene.things))
    return replace(scene, things=things, stated=frozenset(stated))


def _change_layout(scene: Scene, rng: np.random.Generator) -> Scene:
    if scene.is_pair:
        turned = rng.random() < 0.6
        swapped = not turned or rng.random() < 0.5
        layout = PAIRS[1 - PAIRS.index(scene.layout)] if turned else scene.layout
        if not swapped:
            return replace(scene, layout=layout)
        swap = str.maketrans("01", "10")
        stated = frozenset(slot.translate(swap) for slot in scene.stated)
        return replace(scene, things=scene.things[::-1], layout=layout, stated=stated)
    same = COUNTS if scene.is_count else SINGLES
    options = same if rng.random() < 0.8 else COUNTS + SINGLES
    layout = _pick(rng, options, (scene.layout,))
    stated = scene.stated | {"layout"}
    if layout in COUNTS or scene.is_count:
        stated -= {"size0"}
    things = scene.things
    if layout in COUNTS:
        things = (replace(things[0], size="large"),)
    return replace(scene, things=things, layout=layout, stated=frozenset(stated))


def session(rng: np.random.Generator, length: int) -> list[Scene]:
    """Prompts of one user who iterates: each changes one to three attributes of an earlier one."""
    scenes = [sample_scene(rng)]
    while len(scenes) < length:
        # Mostly the latest, at times an older one that was liked better.
        back = 1 + min(int(rng.geometric(0.6)) - 1, len(scenes) - 1)
        changes = int(rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))
        scenes.append(mutate(scenes[-back], rng, changes=changes))
    return scenes[:length]
