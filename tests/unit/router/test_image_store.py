"""Images by URL: bounded, short-lived, with names that cannot be guessed."""

from __future__ import annotations

import pytest
from router_kit import Clock

from gesso_router.image_store import ImageStore, StoredImage, new_name


def image(size: int) -> StoredImage:
    return StoredImage(bytes(size), "image/png")


def test_images_go_by_age_and_for_want_of_room() -> None:
    clock = Clock()
    store = ImageStore(most_bytes=10, seconds=60.0, clock=clock)
    store.put("first", image(4))
    store.put("second", image(4))
    assert store.get("first") == store.get("second") == image(4)
    store.put("third", image(4))
    assert store.get("first") is None
    assert (len(store), store.bytes) == (2, 8)
    clock.now += 60
    assert store.get("third") is None
    assert store.bytes == 0


def test_one_that_is_put_again_takes_nobodys_place() -> None:
    clock = Clock()
    store = ImageStore(most_bytes=10, seconds=60.0, clock=clock)
    store.put("other", image(4))
    for _ in range(3):
        store.put("again", image(4))
    assert (len(store), store.bytes) == (2, 8)
    assert store.get("other") is not None
    clock.now += 60
    assert store.get("again") is None
    store.put("again", image(4))
    assert store.get("again") is not None


def test_one_larger_than_the_store_is_refused_and_costs_nobody_its_place() -> None:
    store = ImageStore(most_bytes=10)
    store.put("kept", image(4))
    with pytest.raises(ValueError, match="11 bytes: at most 10"):
        store.put("large", image(11))
    assert store.get("kept") is not None


def test_names_cannot_be_guessed() -> None:
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    assert {len(n) for n in names} == {32}  # 192 bits
