"""Views of workers are kept until something changes, and never longer than they may be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from router_kit import PROFILE

from gesso_router.fleet import Endpoint, Fleet, Flight, WorkerReport

READY = WorkerReport(ready=True, draining=False, profile=PROFILE)
BUSY = WorkerReport(True, False, PROFILE, active=(("theirs", 40),))


def fleet(report: WorkerReport = READY) -> tuple[Fleet, Flight]:
    """Worker a with one request of ours, whose view has been made at 10 s, and its twin b."""
    made = Fleet(50, 2, 3)
    made.apply([Endpoint(n, f"{n}:1", 0) for n in "ab"])
    for name in "ab":
        made.reported(name, report, 10.0)
    flight = made.sent("a", "mine", 50, 10.0)
    made.views(10.0)
    return made, flight


def test_a_view_is_kept_while_nothing_changes() -> None:
    made, _ = fleet(BUSY)
    first, again = made.views(10.0), made.views(10.049)
    assert [x is y for x, y in zip(first, again, strict=True)] == [True, True]


def test_a_busy_workers_view_grows_old_at_once_a_resting_ones_later() -> None:
    made, _ = fleet(BUSY)
    # A step takes 0.01 s.
    assert [w.active for w in made.views(10.065)] == [(34,), (34,)]
    resting, _ = fleet()
    first = resting.views(10.0)
    assert resting.views(10.9)[1] is first[1]
    assert resting.views(11.1)[1] is not first[1]


CHANGES: dict[str, Callable[[Fleet, Flight], object]] = {
    "sent": lambda f, _: f.sent("a", "second", 30, 10.0),
    "done": lambda f, _: f.done("a", "mine", 10.0),
    "started": lambda f, mine: f.started("a", mine, 50, 10.0),
    "reported": lambda f, _: f.reported("a", BUSY, 10.0),
    "assigned": lambda f, _: f.apply([Endpoint("a", "a:1", 25), Endpoint("b", "b:1", 0)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_worker_shows_at_once_and_in_no_other(change: str) -> None:
    made, mine = fleet()
    before = made.views(10.0)
    CHANGES[change](made, mine)
    after = made.views(10.0)
    assert after[0] != before[0]
    assert after[1] is before[1]


def test_progress_shows_at_once() -> None:
    made, mine = fleet()
    made.started("a", mine, 50, 10.0)
    assert made.views(10.0)[0].active == (50,)
    made.progressed("a", mine, 20, 10.0)
    assert made.views(10.0)[0].active == (20,)


def test_an_image_proves_its_worker_at_once() -> None:
    made, mine = fleet()
    made.started("a", mine, 50, 10.0)
    made.progressed("a", mine, 1, 10.5)
    assert not made.views(10.5)[0].proven
    made.finished("a", mine)
    assert made.views(10.5)[0].proven


def test_a_lost_worker_has_no_view() -> None:
    made, _ = fleet()
    made.lost("a", 10.0)
    assert [w.name for w in made.views(10.0)] == ["b"]
    made.reported("a", BUSY, 10.01)
    assert made.views(10.01)[0].active == (40,)
