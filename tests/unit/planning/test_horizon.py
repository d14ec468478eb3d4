"""Looking ahead: who is asked for, when, and who is let go."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_operator.planning.horizon import to_ask

SIZES = np.arange(2.0, 7.0)


def values(wanted, worth=10.0, cost=1.0):
    """Each step is worth `worth` per worker up to the number wanted, less the cost."""
    return np.array([worth * np.minimum(SIZES, w) - cost * SIZES for w in wanted])


def asked(table, lead, cost=1.0):
    return SIZES[to_ask(table, lead, cost * SIZES * (lead + 1))]


def test_workers_are_asked_for_when_they_are_just_in_time():
    assert asked(values([2, 2, 2, 5, 5, 5]), 3)[0] == 5
    assert asked(values([2, 2, 2, 2, 5, 5]), 3)[0] == 2


def test_workers_that_nobody_needs_go():
    assert list(asked(values([3] * 8), 2)) == [3, 3, 3, 3, 3]


def test_workers_stay_over_a_gap_that_is_shorter_than_their_start():
    assert asked(values([5, 2, 5, 5, 5, 5]), 3)[3] == 5
    assert asked(values([2] * 12 + [5] * 6), 3)[3] == 2


def test_dear_start_for_a_short_need_is_not_made():
    assert asked(values([2, 2, 5, 2, 2, 2], worth=2.0), 2)[0] == 2


def brute_force(table, lead, cost):
    """The best first sizes, by trying every path."""
    steps, size = table.shape
    best = {}
    for begin in range(size):
        found = {}
        for path in itertools.product(range(size), repeat=steps):
            before, worth = begin, 0.0
            for j, n in enumerate(path):
                if n > before and j < lead:
                    break
                worth += table[j, n] - cost * max(0.0, SIZES[n] - SIZES[before])
                before = n
            else:
                if worth > found.get("worth", -np.inf) + 1e-9:
                    found = {"worth": worth, "path": path}
        path = (begin, *found["path"])
        grown = path[lead + 1] > path[lead]
        best[begin] = max(path[1], path[lead + 1]) if grown else path[1]
    return best


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_agrees_with_trying_every_path(seed, lead):
    table = np.random.default_rng(seed).normal(0, 3, (4, 4))
    starts = 1.5 * SIZES[:4]
    found = to_ask(table, lead, starts)
    for begin, best in brute_force(table, lead, 1.5).items():
        assert found[begin] == best


def test_slots_side_by_side_are_solved_as_alone():
    rng = np.random.default_rng(1)
    tables = rng.normal(0, 1, (6, 3, 5))
    together = to_ask(tables, 2, 0.5 * SIZES)
    for i in range(3):
        assert np.array_equal(together[i], to_ask(tables[:, i], 2, 0.5 * SIZES))
