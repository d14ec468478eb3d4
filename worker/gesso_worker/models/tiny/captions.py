"""Wordings of a scene: every stated attribute in one of several phrasings, and nothing else.

numpy only. The longest caption takes at most 26 tokens, start and end included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from gesso_worker.models.tiny.scenes import Scene, Thing

LARGE: Final = ("large", "large", "big")
SMALL: Final = ("small", "small", "little")
STRIPED: Final = ("striped", "striped", "banded")
PLURALS: Final = {"cross": "crosses"}
OPENINGS: Final = ("", "", "", "", "a picture of ", "an image of ", "a drawing of ")

POSITIONS: Final[dict[str, tuple[str, ...]]] = {
    "centre": ("in the centre", "in the middle", "at the centre"),
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "on the top side"),
    "bottom": ("at the bottom", "on the bottom side"),
    "top left": ("in the top left corner", "at the top left", "in the upper left corner"),
    "top right": ("in the top right corner", "at the top right", "in the upper right corner"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left corner"),
    "bottom right": (
        "in the bottom right corner",
        "at the bottom right",
        "in the lower right corner",
    ),
}
LEFT_OF: Final = ("to the left of", "left of", "on the left of")
RIGHT_OF: Final = ("to the right of", "right of", "on the right of")
ABOVE: Final = ("above", "above", "over")
BELOW: Final = ("below", "below", "beneath")
NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "two": ("two", "two", "a pair of"),
    "three": ("three", "three", "a group of three"),
    "four": ("four", "four", "a group of four"),
}
#: Wordings of the background by style; the empty style is the unstated one. ``{}`` is the colour.
BACKGROUNDS: Final[dict[str, tuple[str, ...]]] = {
    "": ("on a {} background", "on {}", "against a {} background"),
    "plain": ("on a plain {} background", "on plain {}", "against a plain {} background"),
    "gradient": ("on a {} gradient", "on a {} gradient background", "against a {} gradient"),
    "spotlight": (
        "on a {} background with a spotlight",
        "on {} with a spotlight",
        "under a spotlight on {}",
    ),
}
#: The same where the colour is unstated.
STYLES_ONLY: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("on a plain background", "against a plain background"),
    "gradient": ("on a gradient", "on a gradient background"),
    "spotlight": ("under a spotlight", "with a spotlight"),
}
#: Every word of the grammar, for the tokenizer: each becomes one token.
EXTRA_WORDS: Final = (
    "no",
    "one",
    "five",
    "six",
    "shape",
    "object",
    "center",
    "grey",
    "brown",
    "pink",
)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _adjectives(thing: Thing, sized: bool, rng: np.random.Generator) -> list[str]:
    words = []
    if sized:
        words.append(_pick(rng, LARGE if thing.size == "large" else SMALL))
    if thing.texture == "striped":
        words.append(_pick(rng, STRIPED))
    return [*words, thing.colour]


def _one(thing: Thing, sized: bool, rng: np.random.Generator) -> str:
    """A singular noun phrase with its article, texture before or after the noun."""
    words = _adjectives(thing, sized, rng)
    tail = ""
    if thing.texture == "striped" and rng.random() < 0.25:
        words = [word for word in words if word not in STRIPED]
        tail = " with stripes"
    article = "an" if words[0][0] in "aeiou" else "a"
    return f"{article} {' '.join(words)} {thing.shape}{tail}"


def _many(thing: Thing, rng: np.random.Generator) -> str:
    words = " ".join(_adjectives(thing, False, rng))
    return f"{words} {PLURALS.get(thing.shape, thing.shape + 's')}"


def _background(scene: Scene, rng: np.random.Generator) -> str:
    style = scene.style if "style" in scene.stated else ""
    if "background" in scene.stated:
        text = _pick(rng, BACKGROUNDS[style]).format(scene.background)
        return text.replace(" a orange", " an orange")
    return _pick(rng, STYLES_ONLY[style]) if style else ""


def _subject(scene: Scene, rng: np.random.Generator) -> str:
    thing = scene.things[0]
    sized = "size0" in scene.stated
    if scene.is_count:
        return f"{_pick(rng, NUMBERS[scene.layout])} {_many(thing, rng)}"
    first = _one(thing, sized, rng)
    if not scene.is_pair:
        if "layout" not in scene.stated:
            return first
        return f"{first} {_pick(rng, POSITIONS[scene.layout])}"
    second = _one(scene.things[1], "size1" in scene.stated, rng)
    horizontal = scene.layout == "horizontal"
    if rng.random() < 0.65:
        return f"{first} {_pick(rng, LEFT_OF if horizontal else ABOVE)} {second}"
    return f"{second} {_pick(rng, RIGHT_OF if horizontal else BELOW)} {first}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of the wordings of the scene, in lower case: tells what is stated and nothing else."""
    subject = _subject(scene, rng)
    background = _background(scene, rng)
    if background and rng.random() < 0.12:
        return f"{background}, {subject}"
    opening = _pick(rng, OPENINGS)
    return f"{opening}{subject}" + (f" {background}" if background else "")


def words() -> list[str]:
    """Every word a caption can hold, sorted: the tokenizer's vocabulary."""
    from gesso_worker.models.tiny import scenes

    phrases: list[str] = list(
        LARGE + SMALL + STRIPED + OPENINGS + LEFT_OF + RIGHT_OF + ABOVE + BELOW
    )
    for table in (POSITIONS, NUMBERS, BACKGROUNDS, STYLES_ONLY):
        phrases += [phrase for options in table.values() for phrase in options]
    for options in scenes.SLOTS.values():
        phrases += options
    phrases += [PLURALS.get(shape, shape + "s") for shape in scenes.SHAPES]
    phrases += ["a", "an", "with stripes", ",", *EXTRA_WORDS]
    return sorted({word for phrase in phrases for word in phrase.replace("{}", "").split()})
