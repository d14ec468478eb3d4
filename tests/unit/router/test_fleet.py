"""What the router knows of its workers: each request once, whatever the reports lag."""

from __future__ import annotations

import pytest
from router_kit import PROFILE

from gesso_router.fleet import Endpoint, Fleet, WorkerReport


def fleet(*names: str, report: WorkerReport | None = None) -> Fleet:
    made = Fleet(50, 2, 3)
    made.apply([Endpoint(n, f"{n}:1", 0) for n in names])
    for name in names:
        made.reported(name, report or READY, 10.0)
    return made


READY = WorkerReport(ready=True, draining=False, profile=PROFILE)


def busy(
    active: tuple[tuple[str, int], ...] = (), queued: tuple[tuple[str, int], ...] = ()
) -> WorkerReport:
    return WorkerReport(True, False, PROFILE, active, queued)


def test_a_worker_counts_from_its_first_good_report() -> None:
    made = Fleet(50, 2, 3)
    made.apply([Endpoint("a", "a:1", 5)])
    assert made.usable == []
    made.reported("a", READY, 10.0)
    (view,) = made.views(10.0)
    assert (view.name, view.assigned_skipped_steps, view.profile.max_batch) == ("a", 5, 2)


def test_the_unready_the_draining_and_the_unlike_get_nothing_new() -> None:
    made = fleet("a")
    for report in (
        WorkerReport(False, False, PROFILE),
        WorkerReport(True, True, PROFILE),
        WorkerReport(True, False, None),
        WorkerReport(True, False, type(PROFILE)("other", 25, 0.0, 0.0, (0.01,))),
    ):
        made.reported("a", report, 11.0)
        assert made.usable == []
        assert made.views(11.0) == ()
        assert [e.name for e in made.reachable] == ["a"]
    made.reported("a", READY, 12.0)
    assert made.usable == ["a"]


def test_flights_fill_the_gap_between_reports() -> None:
    made = fleet("a")
    made.sent("a", "mine", 50, 10.1)
    assert made.views(10.1)[0].queued == (50,)
    flight = made.sent("a", "second", 30, 10.1)
    flight.active, flight.progress_s, flight.remaining = True, 10.1, 25
    view = made.views(10.1)[0]
    assert (view.active, view.queued) == ((25,), (50,))


def test_a_request_counts_once() -> None:
    made = fleet("a")
    made.sent("a", "mine", 50, 9.0)
    made.sent("a", "waits", 50, 9.0)
    made.reported("a", busy((("mine", 40), ("theirs", 20)), (("waits", 50),)), 10.5)
    view = made.views(10.5)[0]
    assert (sorted(view.active), view.queued) == ([20, 40], (50,))


def test_what_has_started_since_the_report_is_active() -> None:
    made = fleet("a")
    flight = made.sent("a", "mine", 50, 9.0)
    made.reported("a", busy(queued=(("mine", 50),)), 10.5)
    flight.active, flight.progress_s, flight.remaining = True, 10.6, 49
    view = made.views(10.6)[0]
    assert (view.active, view.queued) == ((49,), ())


def test_what_ended_since_the_report_is_left_out() -> None:
    made = fleet("a")
    made.sent("a", "mine", 50, 9.0)
    made.reported("a", busy((("mine", 2),)), 10.0)
    made.done("a", "mine", 10.2)
    assert made.views(10.2)[0].active == ()
    # A report that was asked for before the end may still show it ...
    made.reported("a", busy((("mine", 1),)), 10.1)
    assert made.views(10.3)[0].active == ()
    # ... one asked for after it cannot: then it is somebody else's.
    made.reported("a", busy((("mine", 1),)), 10.4)
    assert made.views(10.4)[0].active == (1,)


def test_remaining_steps_age_with_the_clock() -> None:
    made = fleet("a")
    made.reported("a", busy((("theirs", 40),)), 10.0)
    assert made.views(10.205)[0].active == (20,)
    assert made.views(99.0)[0].active == (1,)


def test_an_older_report_does_not_undo_a_newer() -> None:
    made = fleet("a")
    made.reported("a", busy((("x", 9),)), 12.0)
    made.reported("a", READY, 11.0)
    assert made.views(12.0)[0].active == (9,)


def test_a_lost_worker_returns_with_a_report_asked_for_after_its_loss() -> None:
    made = fleet("a")
    assert made.lost("a", 11.0)
    assert not made.lost("a", 11.1)
    assert (made.usable, made.reachable) == ([], [])
    made.reported("a", READY, 10.9)
    assert made.usable == []
    made.reported("a", READY, 11.2)
    assert made.usable == ["a"]


def test_each_loss_counts_once_and_going_as_announced_is_none() -> None:
    made = fleet("a", "b", "c")
    assert made.losses == 0
    assert made.lost("a", 11.0)
    assert not made.lost("a", 11.1)
    assert [made.missed("b") for _ in range(4)] == [False, False, True, False]
    made.reported("c", WorkerReport(True, True, PROFILE), 12.0)
    assert made.lost("c", 13.0)
    assert made.losses == 2
    # It is counted though the plan names neither any more.
    made.apply([])
    assert made.losses == 2


def test_a_worker_that_misses_a_poll_is_left_alone_until_it_answers() -> None:
    made = fleet("a", "b")
    made.reported("a", READY, 10.0)
    made.reported("b", READY, 10.0)
    assert not made.missed("a")
    assert made.usable == ["b"]
    assert [v.name for v in made.views(10.5)] == ["b"]
    assert [e.name for e in made.reachable] == ["b"]
    # Better than to refuse: where nobody answers, or the other has failed it.
    assert [v.name for v in made.views(10.5, frozenset({"b"}))] == ["a", "b"]
    assert not made.missed("b")
    assert made.usable == ["a", "b"]
    made.reported("a", READY, 11.0)
    assert made.usable == ["a"]


def test_a_worker_is_lost_after_several_misses_in_a_row() -> None:
    made = fleet("a")
    assert [made.missed("a") for _ in range(4)] == [False, False, True, False]
    made.reported("a", READY, 12.0)
    assert not made.missed("a")
    assert made.usable == ["a"]


def test_a_plan_adds_moves_and_removes_workers() -> None:
    made = fleet("a", "b")
    came, went = made.apply(
        [Endpoint("a", "a:1", 25), Endpoint("b", "b:2", 0), Endpoint("c", "c:1", 0)]
    )
    assert (sorted(came), went) == (["b", "c"], ["b"])
    assert made.usable == ["a"]
    assert made.views(10.0)[0].assigned_skipped_steps == 25
    assert made.apply([]) == ([], ["a", "b", "c"])


def test_workers_that_no_plan_names_change_nothing() -> None:
    made = fleet()
    made.reported("x", READY, 10.0)
    made.done("x", "r", 10.0)
    flight = made.sent("x", "r", 50, 10.0)
    assert flight.remaining == 50
    assert not made.lost("x", 10.0)
    assert not made.missed("x")
    assert made.views(10.0) == ()


def run_alone(made: Fleet, name: str, request_id: str, tick: float) -> None:
    """A request of ten steps, `tick` seconds each."""
    flight = made.sent(name, request_id, 10, 10.0)
    made.started(name, flight, 10, 10.0)
    for i in range(1, 11):
        made.progressed(name, flight, 10 - i, 10.0 + i * tick)
    made.finished(name, flight)
    made.done(name, request_id, 10.0 + 10 * tick)


def test_times_follow_a_workers_drift_whatever_profile_it_tells_until_it_is_another() -> None:
    made = fleet("a", "b")
    for i in range(60):
        run_alone(made, "a", f"a{i}", 2 * PROFILE.tick_seconds(1))
        run_alone(made, "b", f"b{i}", PROFILE.tick_seconds(1))
    slow, steady = made.views(10.0)
    assert steady.profile.step_seconds == pytest.approx(PROFILE.step_seconds[:2], rel=0.02)
    assert slow.profile.tick_seconds(1) == pytest.approx(2 * PROFILE.tick_seconds(1), rel=0.05)
    made.reported("a", READY, 11.0)
    assert made.views(11.0)[0].profile == slow.profile
    corrected = tuple(1.5 * t for t in PROFILE.step_seconds)
    changed = type(PROFILE)("fake", 50, PROFILE.encode_seconds, PROFILE.decode_seconds, corrected)
    made.reported("a", WorkerReport(True, False, changed), 12.0)
    assert made.views(12.0)[0].profile.tick_seconds(1) == pytest.approx(
        slow.profile.tick_seconds(1), rel=0.03
    )
    made.lost("a", 13.0)
    made.reported("a", WorkerReport(True, False, changed), 14.0)
    assert made.views(14.0)[0].profile.step_seconds == changed.step_seconds[:2]


def test_a_full_batch_is_no_drift() -> None:
    made = fleet("a")
    made.reported("a", busy((("theirs", 40),)), 10.1)
    for i in range(60):
        run_alone(made, "a", f"r{i}", PROFILE.tick_seconds(2))
    assert made.views(10.2)[0].profile.step_seconds == pytest.approx(
        PROFILE.step_seconds[:2], rel=0.02
    )


def test_what_becomes_of_requests_says_nothing_of_a_worker_that_has_moved() -> None:
    made = fleet("a", "b")
    flights = [made.sent("a", f"r{i}", 50, 10.0) for i in range(4)]
    made.started("a", flights[0], 50, 10.0)
    made.apply([Endpoint("a", "a:2", 0), Endpoint("b", "b:1", 0)])
    made.reported("a", READY, 11.0)
    for flight in flights[1:]:
        made.done("a", flight.request_id, 11.5)
        assert not made.failed("a", flight, 11.5)
        made.refused("a", flight, 11.5)
    assert sorted(made.usable) == ["a", "b"]
    for i in range(3):
        made.failed("a", made.sent("a", f"s{i}", 50, 12.0), 12.0)
    assert made.usable == ["b"]
    made.progressed("a", flights[0], 1, 99.0)  # slow as it was, and well in the end
    made.finished("a", flights[0])
    assert made.barred(12.0) == {"a": True, "b": False}
    made.reported("a", READY, 13.1)
    assert made.views(13.1)[0].profile.step_seconds == PROFILE.step_seconds[:2]


def test_a_worker_that_keeps_failing_is_left_alone_unless_it_is_the_last() -> None:
    made = fleet("a", "b")

    def failed(name: str, now_s: float) -> bool:
        flight = made.sent(name, "r", 50, now_s)
        made.done(name, "r", now_s)
        return made.failed(name, flight, now_s)

    assert [failed("a", 10.0) for _ in range(3)] == [False, False, True]
    assert made.barred(10.5) == {"a": True, "b": False}
    assert made.barred(60.0) == {"a": False, "b": False}
    assert made.usable == made.holding("") == ["b"]
    assert [v.name for v in made.views(10.0)] == ["b"]
    made.reported("a", READY, 10.5)
    assert made.usable == ["b"]
    made.reported("a", READY, 11.0)  # its time is over: it is tried again
    assert made.usable == ["a", "b"]
    assert failed("a", 11.0)
    made.finished("a", made.sent("a", "1", 50, 11.0))
    assert made.usable == ["a", "b"]  # an image came: all is well
    for name in ("a", "b"):
        for _ in range(3):
            failed(name, 12.0)
    assert made.usable == ["a", "b"]  # better to try than to refuse all
