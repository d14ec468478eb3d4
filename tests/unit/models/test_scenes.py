"""The scene grammar: what it draws, words and changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_worker.models.tiny import captions, renderer, scenes, tokenizer

seeds = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> scenes.Scene:
    return scenes.sample_scene(np.random.default_rng(seed))


@given(seeds)
@settings(max_examples=300, deadline=None)
def test_a_caption_tells_every_stated_attribute_in_28_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = scenes.sample_scene(rng)
    text = captions.caption(scene, rng)
    assert len([i for i in tokenizer.encode(text) if i != tokenizer.PAD_2]) <= 28
    told = scenes.stated_values(scene)
    for i, thing in enumerate(scene.things):
        assert thing.shape in text
        assert thing.colour in text
        if f"size{i}" in told:
            words = captions.LARGE if thing.size == "large" else captions.SMALL
            assert any(word in text.split() for word in words)
    assert ("strip" in text or "banded" in text) == any(
        t.texture == "striped" for t in scene.things
    )
    assert (scene.background in text) or "background" not in told
    if "background" not in told:
        assert scene.background not in text
    if "style" not in told:
        assert "gradient" not in text
        assert "spotlight" not in text
        assert "plain" not in text


@given(seeds)
@settings(max_examples=300, deadline=None)
def test_a_background_never_hides_a_thing(seed: int) -> None:
    for scene in scenes.session(np.random.default_rng(seed), 5):
        assert scene.background not in [thing.colour for thing in scene.things]
        assert len(set(scene.things)) == len(scene.things)


@given(seeds, st.sampled_from(scenes.KINDS))
@settings(max_examples=300, deadline=None)
def test_a_change_changes_its_kind_alone_and_states_it(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    scene = scenes.sample_scene(rng)
    if kind not in scenes.applicable_kinds(scene):
        with pytest.raises(ValueError, match="does not apply"):
            scenes.mutate(scene, rng, kind=kind)
        return
    other = scenes.mutate(scene, rng, kind=kind)
    mine, theirs = scenes.values(scene), scenes.values(other)
    changed = {slot for slot in mine.keys() | theirs.keys() if mine.get(slot) != theirs.get(slot)}
    if kind == "layout":
        assert set(scene.things) == set(other.things) or not scene.is_pair
        assert scene.layout != other.layout or scene.things == other.things[::-1]
    else:
        assert {slot.rstrip("01") for slot in changed} == {kind}
        assert changed <= other.stated


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_a_session_changes_one_to_three_attributes_of_an_earlier_prompt(seed: int) -> None:
    found = scenes.session(np.random.default_rng(seed), 6)
    assert len(found) == 6
    for i, scene in enumerate(found[1:], start=1):
        assert min(kinds_apart(scene, earlier) for earlier in found[:i]) <= 3
        # A user may come back to an old prompt, but never sends the one that was just changed.
        assert any(scene != earlier for earlier in found[:i])


def kinds_apart(a: scenes.Scene, b: scenes.Scene) -> int:
    """In how many kinds of attribute two scenes differ; the order of a pair counts as layout."""
    if len(a.things) != len(b.things):
        return 99
    swapped = [replace(a, things=a.things[::-1], layout="swapped")] if a.is_pair else []
    apart = []
    for one in (a, *swapped):
        mine, theirs = scenes.values(one), scenes.values(b)
        slots = {slot for slot in mine.keys() & theirs.keys() if mine[slot] != theirs[slot]}
        apart.append(len({slot.rstrip("01") for slot in slots}))
    return min(apart)


def test_the_same_seed_draws_the_same_scene_caption_and_pixels() -> None:
    drawn = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        scene = scenes.sample_scene(rng)
        drawn.append((scene, captions.caption(scene, rng), renderer.render(scene, rng).tobytes()))
    assert drawn[0] == drawn[1]


def test_an_image_is_64_by_64_and_two_seeds_differ() -> None:
    scene = scene_of(1)
    a, b = (renderer.render(scene, np.random.default_rng(seed)) for seed in (1, 2))
    assert a.shape == (64, 64, 3)
    assert a.dtype == np.uint8
    assert (a != b).any()


def test_the_known_sentence_is_of_the_grammar() -> None:
    things = (
        scenes.Thing("star", "red", "large"),
        scenes.Thing("ring", "blue", "small"),
    )
    told = {f"{s}{i}" for i in (0, 1) for s in ("shape", "colour", "size", "texture")} | {"layout"}
    scene = scenes.Scene(things, "vertical", "green", "plain", frozenset(told))
    rng = np.random.default_rng(0)
    wordings = {captions.caption(scene, rng) for _ in range(2000)}
    assert "a large red star above a small blue ring" in wordings
    assert "a small blue ring below a large red star" in wordings


def test_held_out_scenes_are_about_one_in_sixteen() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([scenes.is_held_out(scenes.sample_scene(rng)) for _ in range(4000)])
    assert 0.03 < share < 0.1
    assert scenes.is_held_out(scenes.sample_scene(rng, held_out=True))
    assert not scenes.is_held_out(scenes.sample_scene(rng, held_out=False))
