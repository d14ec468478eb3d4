"""What the console remembers: points of its history, plans, and the pictures of its gallery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_router.console.gallery import Gallery, Picture, Source
from gesso_router.console.history import History, PlanNote, Reading, point


def reading(at: float, **fields: Any) -> Reading:
    values: dict[str, Any] = {
        **dict.fromkeys(("offered", "in_slo", "late", "shed", "failed", "cache_hits"), 0),
        **dict.fromkeys(("open", "waiting"), 0),
        **dict.fromkeys(("quality_sum", "backlog_seconds", "price", "latency_p50"), 0.0),
        "latency_p95": 0.0,
        "served_by_level": (0, 0),
        "workers_ready": 2,
        "mix": {"0": 2},
    }
    return Reading(at_s=at, **(values | fields))


def test_figures_are_those_between_two_readings() -> None:
    before = reading(10.0, offered=5, in_slo=3, quality_sum=3.0, served_by_level=(3, 0))
    now = reading(
        20.0,
        offered=25,
        in_slo=11,
        late=2,
        shed=6,
        failed=1,
        cache_hits=4,
        quality_sum=12.0,
        served_by_level=(9, 4),
        open=4,
        waiting=3,
    )
    told = point(before, now)
    assert told["rate"] == 2.0
    assert (told["attainment"], told["refused"]) == (0.4706, 0.3529)
    assert told["quality"] == 0.9
    assert told["hit_rate"] == 0.4
    assert told["levels"] == [6, 4]
    assert (told["open"], told["waiting"], told["mix"]) == (4, 3, {"0": 2})
    idle = point(now, now)
    assert [idle[n] for n in ("rate", "attainment", "quality", "hit_rate")] == [None] * 4


@given(st.integers(0, 60), st.integers(2, 12), st.integers(0, 70))
def test_a_reader_sees_each_reading_once_while_it_is_held(n: int, held: int, seen: int) -> None:
    history = History(seconds=held, window=1)
    for i in range(n):
        history.add(reading(float(i)))
    numbers = [p["seq"] for p in history.since(seen)]
    kept = list(range(max(1, n - held + 1), n + 1))
    # A reader that has seen more than there was knew an earlier process: it is told everything.
    assert numbers == [k for k in kept if k > seen or seen > n]
    assert history.taken == n


def test_a_window_that_is_not_shorter_than_the_history_is_refused() -> None:
    with pytest.raises(ValueError, match="window: 10 is not allowed: 1 to 9"):
        History(seconds=10, window=10)


def test_plans_are_noted_once_the_newest_first_and_few() -> None:
    history = History(plans=2)
    told = ((1, "0:2"), (1, "0:2"), (2, "0:1,5:1"), (3, "5:2"), (3, "5:2"), (4, "5:2"))
    for revision, mix in told:
        history.note(PlanNote(revision, 0.0, mix, 0.0, "Load", "more comes"))
    assert [(p.revision, p.times) for p in history.plans] == [(4, 2), (2, 1)]


def picture(data: bytes = b"image", source: Source | None = None, angle: float = 0.0) -> Picture:
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    return Picture(
        "r", 1.0, "a star", data, "image/png", 10, 50, 0.9, 0.8, "a", "", 2**60, 0.1, 0.2, source, vector
    )  # fmt: skip


def test_the_gallery_is_bounded_by_count_and_bytes() -> None:
    gallery = Gallery(most=3, most_bytes=10)
    for _ in range(5):
        gallery.hang(picture(b"1234"))
    assert (len(gallery), gallery.hung) == (2, 5)
    assert [label["number"] for label in gallery.since(0)] == [5, 4]
    assert [label["number"] for label in gallery.since(4)] == [5]
    assert [label["number"] for label in gallery.since(99)] == [5, 4]
    assert gallery.picture(3) is None
    gallery.hang(picture(b"12345678901"))
    assert len(gallery) == 0


def test_a_label_names_the_picture_whose_latents_it_began_with() -> None:
    gallery = Gallery()
    gallery.hang(picture(angle=0.0))
    gallery.hang(picture(angle=1.0))
    origin = np.array([1.0, 0.0], dtype=np.float32)
    gallery.hang(picture(source=Source("b", "e", 0.8, origin), angle=0.6))
    label = gallery.label(3)
    assert label["source"] == {"worker": "b", "entry": "e", "similarity": 0.8, "picture": 1}
    assert label["seed"] == str(2**60)
    gallery.hang(replace(picture(source=Source("b", "e", 0.8, origin)), owner="another"))
    assert gallery.label(4)["source"]["picture"] is None
    assert [label["number"] for label in gallery.since(0, "another")] == [4]
    nowhere = np.array([0.0, -1.0], dtype=np.float32)
    gallery.hang(picture(source=Source("b", "e", 0.8, nowhere)))
    assert gallery.label(5)["source"]["picture"] is None
    gallery.hang(picture(source=Source("b", "e", None)))
    assert gallery.label(6)["source"]["similarity"] is None
