"""What followed on moments like this one."""

import numpy as np
import pytest

from gesso_operator.planning.analogs import Analogs, analogs_of, place_of
from gesso_operator.planning.daily import Daily, primed

SLOT = 300.0
SLOTS = 288


def history(days=5, every=4, at=5, height=4.0):
    """Calm slots, with a burst of two slots at slot 6 of each `every`-th hour from hour `at` on."""
    rates = np.full(days * SLOTS, 2.0)
    for hour in range(at, days * 24, every):
        rates[hour * 12 + 6 : hour * 12 + 8] *= height
    return primed(Daily(SLOT), rates * SLOT, SLOT, 0.0)


def mean(samples):
    rates, weights = samples
    return float(rates @ weights)


def test_bursts_are_expected_where_they_came_and_nowhere_else():
    past = analogs_of(history().past)
    # Hour 1 of the day had a burst on each day.
    place = 4 * SLOTS + 12
    burst, calm = (past.ahead(place + k, 2.0, (1,))[0] for k in (5, 1))
    assert mean(burst) > 4.0
    assert mean(calm) == pytest.approx(2.0, rel=0.05)
    never = past.ahead(4 * SLOTS + 24 + 5, 2.0, (1,))[0]
    assert mean(never) < mean(burst)


def test_burst_goes_on_as_bursts_did():
    past = analogs_of(history().past)
    begun = 4 * SLOTS + 12 + 6
    on, over = past.ahead(begun, 8.0, (1, 2))
    assert mean(on) == pytest.approx(8.0, rel=0.1)
    assert mean(over) == pytest.approx(2.0, rel=0.1)


def test_nothing_later_is_looked_at():
    past, blind = Analogs(history().past), Analogs(history().past)
    place = 3 * SLOTS + 12 + 5
    blind.relative[place:] = blind.recent[place:] = 7.0
    leads = (1, 4)
    for a, b in zip(past.ahead(place, 2.0, leads), blind.ahead(place, 2.0, leads), strict=True):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])


def test_places_count_from_the_oldest_day():
    daily = primed(Daily(SLOT), np.full(3 * SLOTS + 1, 600.0), SLOT, 0.0)
    assert place_of(daily, 3 * 86_400.0 + 10.0) == 3 * SLOTS


def test_too_little_past_says_nothing():
    assert analogs_of(history(5).past).ahead(6 * 12, 2.0, (1,)) is None


def test_samples_scale_with_the_rate():
    past = analogs_of(history().past)
    place = 4 * SLOTS + 30
    low, high = (past.ahead(place, r, (3,))[0] for r in (2.0, 2.2))
    assert mean(high) >= mean(low)
