"""Several routers' counters as one."""

from hypothesis import given
from hypothesis import strategies as st

from gesso.rpc.v1 import router_pb2
from gesso_operator.reports import Merged, latency_p95

LADDER = (0, 10)


def reply(at, up, offered, quality=(1.0, 0.9), backlog=0.0, revision=1, p95=0.0):
    return router_pb2.ReportResponse(
        at=at,
        uptime_seconds=up,
        offered=offered,
        served_in_slo=offered,
        skipped_steps=LADDER,
        served_by_level=[offered, 0],
        optimal_by_level=[offered, 0],
        predicted_quality_sum=0.9 * offered,
        classes=[router_pb2.PromptClass(name="all", arrivals=offered, quality=quality)],
        backlog_seconds=backlog,
        plan_revision=revision,
        latency_p95_seconds=p95,
    )


def test_differences_of_all_routers_add_up():
    merged = Merged().add({"a": reply(0, 100, 50), "b": reply(0, 90, 20)})
    now = {"a": reply(10, 110, 57, backlog=1.0), "b": reply(10, 100, 23, backlog=3.0, revision=9)}
    report = merged.add(now).report(now, LADDER)
    assert report.offered == 10
    assert report.classes[0].arrivals == 10
    assert report.backlog_s == 3.0
    assert report.plan_revision == 9


def test_a_router_that_restarts_or_comes_counts_from_its_start():
    merged = Merged().add({"a": reply(0, 100, 50)}).add({"a": reply(10, 2, 3)})
    assert merged.total.offered == 3
    merged = merged.add({"a": reply(20, 12, 5), "b": reply(20, 4, 6)})
    assert merged.total.offered == 3 + 2 + 6


def test_a_router_that_was_up_before_anybody_looked_is_no_rate():
    merged = (
        Merged()
        .add({"a": reply(100, 100, 50)})
        .add({"a": reply(110, 110, 51), "b": reply(110, 90, 70)})
    )
    assert merged.total.offered == 1
    assert merged.add({"b": reply(120, 100, 75)}).total.offered == 6


def test_one_that_does_not_answer_keeps_what_it_had():
    merged = Merged().add({"a": reply(0, 9, 5), "b": reply(0, 9, 5)}).add({"a": reply(10, 19, 6)})
    merged = merged.add({"a": reply(20, 29, 7), "b": reply(20, 29, 9)})
    assert merged.total.offered == 2 + 4


def test_curves_weigh_by_arrivals_and_other_ladders_are_left_out():
    now = {"a": reply(1, 1, 30, (1.0, 0.9)), "b": reply(1, 1, 10, (1.0, 0.5))}
    assert Merged().add(now).report(now, LADDER).classes[0].quality == (1.0, 0.8)
    assert Merged().add(now).report(now, (0, 5)).classes[0].quality == ()
    assert Merged().report({}, LADDER) is None


def told(at, up, offered, invalid):
    message = reply(at, up, offered)
    message.invalid = invalid
    message.served_in_slo -= invalid
    return {"a": message}


def test_requests_for_a_k_that_is_not_possible_are_neither_load_nor_misses():
    merged = Merged().add(told(0, 100, 50, 0)).add(told(10, 110, 80, 20))
    assert merged.report(told(10, 110, 80, 20), LADDER).offered == 10
    assert merged.counters.settled == merged.counters.in_time == 10


def test_the_load_does_not_fall_when_a_request_turns_out_to_be_invalid():
    merged, seen = Merged().add(told(0, 100, 50, 0)), []
    for at, offered, invalid in ((10, 55, 0), (20, 55, 1), (30, 57, 1), (40, 58, 1)):
        now = told(at, 100 + at, offered, invalid)
        merged = merged.add(now)
        seen.append(merged.report(now, LADDER).offered)
    assert seen == [5, 5, 6, 7]


def test_the_worst_percentile_counts():
    assert latency_p95([reply(1, 1, 1, p95=2.0), reply(1, 1, 1, p95=3.0)]) == 3.0
    assert latency_p95([]) is None


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=30)
)
def test_sums_never_fall_and_lose_no_request_told(rounds):
    """Two routers; each round some requests come to each, one may restart, one may be silent."""
    merged, truth, state = Merged().add({"a": reply(0, 1, 0), "b": reply(0, 1, 0)}), 0, {}
    state = {"a": [1.0, 0], "b": [1.0, 0]}
    before = 0
    for i, (arrivals, restarts, silent) in enumerate(rounds):
        now = 10.0 * (i + 1)
        for name, entry in state.items():
            if name == "a" and restarts:
                entry[:] = [5.0 - 0.1 * i, 0]
            else:
                entry[0] += 10
            entry[1] += arrivals
            truth += arrivals
        told = {n: reply(now, *entry) for n, entry in state.items() if not (n == "b" and silent)}
        merged = merged.add(told)
        assert merged.total.offered >= before
        before = merged.total.offered
    final = {n: reply(10.0 * len(rounds) + 1, e[0] + 1, e[1]) for n, e in state.items()}
    assert merged.add(final).total.offered == truth
