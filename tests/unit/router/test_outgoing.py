"""Room for images that clients have not read: it is shared, and nobody is locked out."""

from __future__ import annotations

import pytest

from gesso_router.errors import Ending, RequestError
from gesso_router.outgoing import Unread


def fill(unread: Unread, client: str, size: int = 10) -> int:
    """Sends images until it is refused; returns what is on its way."""
    held = 0
    for _ in range(10_000):
        try:
            unread.check(client)
        except RequestError:
            return held
        unread.add(client, size)
        held += size
    raise AssertionError("it was never refused")


def test_one_alone_may_have_all_and_whoever_comes_then_an_equal_part() -> None:
    unread = Unread(1000)
    assert [fill(unread, name) for name in "abc"] == [1000, 340, 250]
    with pytest.raises(RequestError, match="1000 bytes of images") as error:
        unread.check("a")
    assert (error.value.ending, error.value.retry_after_seconds) == (Ending.SHED, 1.0)
    unread.check("d")


def test_who_reads_has_room_again() -> None:
    unread = Unread(1000)
    fill(unread, "a")
    unread.remove("a", 10)
    unread.check("a")
    unread.remove("a", 990)
    assert unread.bytes == 0


def test_an_image_larger_than_the_room_goes_out_alone() -> None:
    unread = Unread(1000)
    unread.check("a")
    unread.add("a", 5000)
    unread.check("b")
    with pytest.raises(RequestError):
        unread.check("a")


def test_nothing_is_begun_when_half_is_taken() -> None:
    unread = Unread(1000)
    unread.add("a", 500)
    unread.check("a")
    with pytest.raises(RequestError):
        unread.check("a", 0.5)
    unread.check("b", 0.5)
