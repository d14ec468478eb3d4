"""Clipper: levels, windows, turns, lazy drops."""

from __future__ import annotations

from routing_kit import options

from gesso_router.routing.clipper import Slot, Turn, Waiting, Window, clipper_option, next_turn
from gesso_router.routing.quality import Option

HEAD = Waiting("r1", deadline_s=10.0)


def test_the_window_grows_by_one_a_clean_window_and_halves_on_a_miss() -> None:
    window, sizes = Window(), []
    for _ in range(10):
        window = window.after(missed=False, largest=4)
        sizes.append(window.size)
    assert sizes == [2, 2, 3, 3, 3, 4, 4, 4, 4, 4]
    assert window.after(missed=True, largest=4) == Window(2, 0)
    assert Window(1).after(missed=True, largest=4) == Window(1)


def test_ha_generates_in_full_and_ht_skips_as_much_as_the_floor_allows() -> None:
    own = options(1.0, 0.9, 0.8, 0.7)
    known = (*own, Option(0, 0.6, model="light"))
    assert clipper_option(known, fastest=False) == own[0]
    assert clipper_option(known, fastest=True) == own[3]
    assert clipper_option(known, fastest=True, min_quality=0.85) == own[1]
    assert clipper_option(known, fastest=True, min_quality=1.0) == own[0]
    assert clipper_option((), fastest=True).skipped_steps == 0


def test_the_least_loaded_worker_takes_the_head() -> None:
    slots = [Slot("a", Window(4), 2), Slot("b", Window(4), 1), Slot("c", Window(1), 1)]
    assert next_turn([HEAD], slots, 0.0) == Turn("r1", "b")


def test_without_an_open_window_the_head_waits_even_past_its_deadline() -> None:
    full = [Slot("a", Window(1), 1)]
    assert next_turn([HEAD], full, 0.0) is None
    assert next_turn([HEAD], full, 99.0) is None
    assert next_turn([HEAD], [], 0.0) is None
    assert next_turn([], [Slot("a", Window(1), 0)], 0.0) is None


def test_the_late_are_dropped_when_their_turn_comes() -> None:
    free = [Slot("a", Window(1), 0)]
    assert next_turn([HEAD], free, 10.0) == Turn("r1", None)
    assert next_turn([HEAD], free, 9.9) == Turn("r1", "a")


def test_a_retry_does_not_go_back() -> None:
    again = Waiting("r1", 10.0, frozenset({"a"}))
    assert next_turn([again], [Slot("a", Window(2), 0)], 0.0) is None
    both = [Slot("a", Window(2), 0), Slot("b", Window(2), 1)]
    assert next_turn([again], both, 0.0) == Turn("r1", "b")
