"""Every well-formed request ends in exactly one outcome, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_kit import Clock, Events, ScriptedPool, failing, job, router, service

from gesso.api.service import Policy
from gesso.plan import QualityCurve
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.errors import Ending, RequestError
from gesso_router.ledger import Ledger, Outcome, Served
from gesso_router.routing.quality import Match

FATES = {
    "served": Outcome.SERVED_IN_SLO,
    "late": Outcome.LATE,
    "retried": Outcome.SERVED_IN_SLO,
    "fails-twice": Outcome.FAILED,
    "fatal": Outcome.FAILED,
    "given-up": Outcome.LATE,
    "bug": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
    "cancelled-late": Outcome.LATE,
    "hopeless": Outcome.SHED,
    "client-gone": Outcome.CANCELLED,
    "cannot be embedded": Outcome.SERVED_IN_SLO,
}


async def play(fates: list[str], policy: str) -> tuple[Ledger, Counter[Outcome], bool]:
    """The ledger, what was expected, and whether the fleet is idle again."""
    pool, clock = ScriptedPool(), Clock()
    spec = service(policy)
    made = router(pool, clock, spec)
    # Windows wide open: who gets a turn when is the gate's own test.
    for name in ("a", "b"):
        for _ in range(20):
            made.gate.finished(name, missed=False)
    expected: Counter[Outcome] = Counter()
    tasks = []

    async def one(fate: str, i: int) -> None:
        prompt = fate if fate == "cannot be embedded" else f"{fate} {i}"
        task = asyncio.current_task()
        assert task is not None

        async def late(request: worker_pb2.WorkerGenerateRequest) -> int:
            clock.now += 10
            return 0

        async def bug(request: worker_pb2.WorkerGenerateRequest) -> int:
            raise ZeroDivisionError

        async def cancel(request: worker_pb2.WorkerGenerateRequest) -> int:
            task.cancel()
            await asyncio.sleep(60)
            return 0

        async def cancel_late(request: worker_pb2.WorkerGenerateRequest) -> int:
            clock.now += 10
            return await cancel(request)

        async def emit(event: image_pb2.GenerateEvent) -> None:
            if fate == "client-gone" and event.WhichOneof("event") == "started":
                raise asyncio.CancelledError

        pool.scripts[prompt] = {
            "late": [late],
            "retried": [failing()],
            "fails-twice": [failing(), failing()],
            "fatal": [failing(retryable=False)],
            "given-up": [failing(timed_out=True)],
            "bug": [bug],
            "cancelled": [cancel],
            "cancelled-late": [cancel_late],
        }.get(fate, [])
        slo = 0.01 if fate == "hopeless" else None
        await made.generate(job(spec, prompt, slo_seconds=slo), emit)

    # One after the other, since some move the clock for all.
    for i, fate in enumerate(fates):
        expected[FATES[fate]] += 1
        tasks.append(asyncio.create_task(one(fate, i)))
        await asyncio.gather(tasks[-1], return_exceptions=True)
    idle = all(made.fleet.in_flight(w) == 0 for w in ("a", "b")) and len(made.gate) == 0
    return made.ledger, expected, idle


@given(st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_each_request_has_the_outcome_of_its_fate(fates: list[str]) -> None:
    ledger, expected, idle = asyncio.run(play(fates, "QualityAware"))
    assert Counter({o: n for o, n in ledger.ended.items() if n}) == expected
    assert ledger.offered == len(fates)
    assert ledger.open == 0
    assert idle
    assert ledger.retried == sum(f in ("retried", "fails-twice") for f in fates)


@pytest.mark.parametrize("policy", sorted(set(get_args(Policy)) - {"QualityAware"}))
@given(st.lists(st.sampled_from(sorted(set(FATES) - {"hopeless"})), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None)
def test_every_policy_accounts_alike(policy: str, fates: list[str]) -> None:
    ledger, expected, idle = asyncio.run(play(fates, policy))
    assert Counter({o: n for o, n in ledger.ended.items() if n}) == expected
    assert ledger.open == 0
    assert idle


@given(
    actions=st.lists(
        st.tuples(
            st.integers(0, 4), st.one_of(st.none(), st.sampled_from(list(Outcome))), st.floats(0, 9)
        ),
        max_size=30,
    )
)
def test_a_ticket_closes_once(actions: list[tuple[int, Outcome | None, float]]) -> None:
    ledger = Ledger((0, 5), ("miss",), 60.0, 100)
    tickets = [ledger.arrive(0.0, 5.0) for _ in range(5)]
    for i, outcome, now in actions:
        before = tickets[i].outcome
        if outcome is None:
            tickets[i].served(now, Served(5, 0.9))
        else:
            assert tickets[i].close(outcome) is (before is None)
        assert before is None or tickets[i].outcome is before
    assert ledger.offered == sum(ledger.ended.values()) + ledger.open
    assert ledger.open == sum(t.outcome is None for t in tickets)
    served = sum(ledger.served_by_level.values())
    assert ledger.quality_sum == pytest.approx(0.9 * served)
    assert ledger.cache_hits == served


def test_served_is_in_slo_up_to_the_deadline() -> None:
    ledger = Ledger((0,), ("miss",), 60.0, 100)
    assert ledger.arrive(10.0, 5.0).served(15.0, Served(0, 1.0)) is Outcome.SERVED_IN_SLO
    assert ledger.arrive(10.0, 5.0).served(15.1, Served(0, 1.0)) is Outcome.LATE


def test_percentiles_are_of_the_last_minute() -> None:
    ledger = Ledger((0,), ("miss",), 60.0, 100)
    for i in range(20):
        ledger.arrive(float(i), 99.0).served(i + 1.0 + i * 0.1, Served(0, 1.0))
    assert ledger.latency_percentiles(21.0, (0.5, 0.95)) == pytest.approx((2.0, 2.9))
    assert ledger.latency_percentiles(1e3, (0.5, 0.95)) == (0.0, 0.0)


def test_classes_report_arrivals_and_mean_quality() -> None:
    ledger = Ledger((0, 5), ("miss", "near"), 60.0, 100)
    ledger.classify("near", QualityCurve((0, 5), (1.0, 0.9)), 0)
    ledger.classify("near", QualityCurve((0, 5), (1.0, 0.7)), 5)
    assert ledger.classes["near"].arrivals == 2
    assert ledger.mean_quality("near") == pytest.approx((1.0, 0.8))
    assert ledger.mean_quality("miss") == ()


async def test_a_named_k_whose_latent_went_with_its_worker_is_a_failure() -> None:
    pool, clock, spec = ScriptedPool(matches=[Match("e", "b", 0.93, (10,))]), Clock(), service()
    made = router(pool, clock, spec)
    pool.scripts["mine"] = [failing()]
    with pytest.raises(RequestError, match="no worker could serve it: tried b") as refused:
        await made.generate(job(spec, "mine", skipped_steps=10), Events())
    assert ([w for w, _ in pool.sent], refused.value.ending) == (["b"], Ending.UNAVAILABLE)
    assert {o: n for o, n in made.ledger.ended.items() if n} == {Outcome.FAILED: 1}


async def test_the_queue_is_bounded() -> None:
    pool, clock, spec = ScriptedPool(), Clock(), service(max_queue=1)
    made = router(pool, clock, spec)
    holding, release = asyncio.Event(), asyncio.Event()

    async def hold(request: worker_pb2.WorkerGenerateRequest) -> int:
        holding.set()
        await release.wait()
        return 0

    async def emit(event: image_pb2.GenerateEvent) -> None:
        pass

    pool.scripts["first"] = [hold]
    first = asyncio.create_task(made.generate(job(spec, "first"), emit))
    await holding.wait()
    with pytest.raises(RequestError, match="maxQueue") as refused:
        await made.generate(job(spec, "second"), emit)
    assert refused.value.reason == "queue-full"
    assert refused.value.retry_after_seconds == 1.0
    release.set()
    await first
    assert made.ledger.ended[Outcome.SHED] == 1
    await made.generate(job(spec, "third"), emit)
    assert made.ledger.ended[Outcome.SERVED_IN_SLO] == 2
