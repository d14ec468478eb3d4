"""Who may act, by the Lease."""

from hypothesis import given
from hypothesis import strategies as st

from gesso_operator.cluster.lease import DURATION_S, Seen, Step, Watch, holds, step


def test_without_a_lease_one_is_made():
    assert step("a", None, Watch(), 0.0) is Step.CREATE


def test_the_holder_renews_and_others_wait_until_it_has_not_for_its_duration():
    seen = Seen("a", "a 1", 15.0)
    watch = Watch().at(seen, 100.0)
    assert step("a", seen, watch, 200.0) is Step.RENEW
    assert step("b", seen, watch, 114.9) is Step.WAIT
    assert step("b", seen, watch, 115.0) is Step.TAKE


def test_a_renewal_begins_the_wait_anew():
    first, then = Seen("a", "a 1", 15.0), Seen("a", "a 2", 15.0)
    watch = Watch().at(first, 0.0).at(then, 14.0)
    assert step("b", then, watch, 16.0) is Step.WAIT
    assert watch.at(then, 20.0) == watch


def test_a_lease_that_was_let_go_is_taken_at_once():
    seen = Seen("", " 3")
    assert step("b", seen, Watch().at(seen, 5.0), 5.0) is Step.TAKE


def test_who_has_never_renewed_holds_nothing():
    assert not holds(None, 0.0)
    assert holds(0.0, 11.9)
    assert not holds(0.0, 12.1)


@given(
    st.lists(st.floats(0.1, 8.0), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_never_do_two_hold_it(gaps, cut):
    """Two candidates; the first is cut off from the API server in some rounds. Clocks run alike."""
    lease, renewed, watches, now, mark = (
        None,
        {"a": None, "b": None},
        {"a": Watch(), "b": Watch()},
        0.0,
        0,
    )
    for gap, away in zip(gaps, cut, strict=False):
        now += gap
        for me in ("a", "b"):
            if me == "a" and away:
                continue
            if lease is not None:
                watches[me] = watches[me].at(lease, now)
            what = step(me, lease, watches[me], now)
            if what is Step.WAIT:
                renewed[me] = None
            else:
                mark += 1
                lease, renewed[me] = Seen(me, f"{me} {mark}", DURATION_S), now
        assert sum(holds(at, now) for at in renewed.values()) <= 1
