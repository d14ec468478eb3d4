"""Token buckets and fair shares, by their properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_router.access.limits import OVERLOAD_S, Bucket, Standing, bearable, has_share
from gesso_router.access.sharing import Sharing


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    bucket, waits = Bucket.full(2.0, 3.0, 0.0), []
    for now in (0.0, 0.0, 0.0, 0.0, 0.5, 0.5):
        bucket, wait = bucket.take(1.0, now)
        waits.append(wait)
    assert waits == [0.0, 0.0, 0.0, 0.5, 0.0, 0.5]


@given(
    st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200)
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket.full(rate, burst, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        bucket, wait = bucket.take(1.0, now)
        taken += wait == 0.0
        assert wait <= 1.0 / rate
    assert taken <= burst + rate * now + 1e-6


def test_a_wait_is_as_long_as_told() -> None:
    bucket, _ = Bucket.full(0.5, 2.0, 0.0).take(2.0, 0.0)
    bucket, wait = bucket.take(2.0, 0.0)
    assert wait == 4.0
    assert bucket.take(2.0, 3.9)[1] == pytest.approx(0.1)
    assert bucket.take(2.0, 4.0)[1] == 0.0


standings = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Standing, st.integers(0, 40), st.integers(0, 40), st.just(0.0), st.just(0.0)),
    max_size=6,
)


@given(standings, st.integers(1, 100))
def test_below_its_part_every_tenant_comes_in(known: dict[str, Standing], room: int) -> None:
    for tenant in "abcdefg":
        others = [n for n in known if n != tenant]
        mine = known.get(tenant, Standing()).open
        if mine < room // (len(others) + 1):
            assert has_share(tenant, known, room, 1.0)


@given(standings, st.integers(1, 100))
def test_beyond_its_part_nobody_takes_what_others_are_about_to_need(
    known: dict[str, Standing], room: int
) -> None:
    for tenant in known:
        part = max(1, room // len(known))
        if known[tenant].open >= part and has_share(tenant, known, room, 1.0):
            assert sum(s.open for s in known.values()) < room


def test_a_flood_of_one_tenant_leaves_the_other_its_part() -> None:
    sharing, admitted = Sharing(), {"flood": 0, "calm": 0}
    sharing.enter("calm", 100, 0.0)
    sharing.leave("calm", 0.0)
    for _ in range(200):
        if sharing.enter("flood", 100, 0.1):
            admitted["flood"] += 1
        else:
            sharing.leave("flood", 0.1)
    assert 50 <= admitted["flood"] < 100
    # The calm one grows: it finds room each time, and the flood finds none beyond its part.
    for i in range(50):
        assert sharing.enter("calm", 100, 0.2 + i / 1000)
    assert sharing.standings["flood"].open + 50 <= 150
    assert not sharing.enter("flood", 100, 0.3)


def test_alone_a_tenant_has_it_all() -> None:
    sharing = Sharing()
    sharing.overloaded(1, 0.0)
    assert all(sharing.enter("only", 100, 0.0) for _ in range(100))


def test_overload_shortens_what_is_shared_for_a_while() -> None:
    assert bearable(256, 40, 10.0, 11.0) == 40
    assert bearable(256, 40, 10.0, 10.1 + OVERLOAD_S) == 256
    assert bearable(256, 0, 10.0, 10.0) == 1
    assert bearable(256, 0, None, 10.0) == 256


def test_tenants_that_are_gone_are_forgotten() -> None:
    sharing = Sharing()
    for i in range(100):
        sharing.enter(f"t{i}", 10, float(i))
        sharing.leave(f"t{i}", float(i))
    assert len(sharing.standings) <= 11
