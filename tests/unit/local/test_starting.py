"""How long starts take, learned from workers that came up."""

from gesso_operator.fleet import Member
from gesso_operator.starting import MOST_STARTS, StartTimes


def member(instance, seconds=None):
    return Member("w", "a", seconds is not None, instance=instance, start_seconds=seconds)


def test_a_start_counts_once_when_it_ends():
    times = StartTimes().see([member("a")])
    assert times.seconds is None
    times = times.see([member("a", 7.0)])
    assert times.seconds == 7.0
    assert times.see([member("a", 7.0)]) is times


def test_who_was_up_before_tells_nothing():
    """It may have been unready meanwhile."""
    assert StartTimes().see([member("a", 9000.0)]).seconds is None
    times = StartTimes().see([member("a")]).see([member("a", 5.0)])
    assert times.see([member("a", 9000.0)]).see([member("a", 9000.0)]).seconds == 5.0


def test_one_that_never_came_up_is_forgotten():
    times = StartTimes().see([member("a")]).see([])
    assert times.see([member("a", 5.0)]).seconds is None


def test_no_instance_or_no_time_tells_nothing():
    times = StartTimes().see([member(""), member("b")])
    assert times.see([member("", 5.0), Member("w", "a", True, instance="b")]).seconds is None


def test_the_median_of_the_last_starts():
    times = StartTimes()
    for i, seconds in enumerate([1000.0] * MOST_STARTS + [5.0, 6.0, 5.0, 6.0, 6.0]):
        times = times.see([member(str(i))]).see([member(str(i), seconds)])
    assert len(times.recent) == MOST_STARTS
    assert times.seconds == 6.0
