"""Every policy at work in the router: what it looks up, at which K it sends, and where to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from router_kit import LADDER, PREDICTOR, Clock, Events, ScriptedPool, failing, job, router, service

from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import worker_pb2
from gesso_router.control import Control
from gesso_router.core import Router
from gesso_router.errors import RequestError
from gesso_router.fleet import Endpoint
from gesso_router.routing.quality import Match

IDENTITY = tuple(tuple(float(i == j) for j in range(len(LADDER))) for i in range(len(LADDER)))
#: Every prompt whose optimal K is 10 (the third level) goes to 20 (the fifth).
TEN_TO_TWENTY = tuple(
    tuple(float(j == (4 if i == 2 else i)) for j in range(len(LADDER))) for i in range(len(LADDER))
)


def made(policy: str, similarity: float = 0.8, levels: Sequence[int] = (0, 20)) -> tuple:
    """A router whose workers a and b have these levels, and a cache with one entry on b."""
    pool, spec = ScriptedPool(matches=[Match("e", "b", similarity, LADDER[1:])]), service(policy)
    here = router(pool, Clock(), spec)
    here.fleet.apply([Endpoint(n, f"{n}:1", k) for n, k in zip("ab", levels, strict=True)])
    return here, pool, spec


async def sent(here: Router, pool: ScriptedPool, spec, n: int = 1) -> list[tuple[str, int]]:
    for i in range(n):
        await here.generate(job(spec, f"prompt {i}"), Events())
    return [(worker, request.skipped_steps) for worker, request in pool.sent]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("policy", ["RoundRobin", "LeastOutstanding", "ClipperHA"])
async def test_policies_in_full_need_no_embedder(policy: str) -> None:
    here, pool, spec = made(policy, similarity=0.99)
    here.embedder = None
    assert here.ready
    assert not here.needs_embedder
    assert {k for _, k in await sent(here, pool, spec, 3)} == {0}
    assert pool.lookups == []


@pytest.mark.parametrize("policy", ["Nirvana", "Argus", "Proteus", "ClipperHT", "BacklogPrice"])
def test_the_others_wait_for_it(policy: str) -> None:
    here, _, _ = made(policy)
    here.embedder = None
    assert here.unready_reason == "the router is starting: its embedding model is loading"


async def test_round_robin_takes_turns() -> None:
    here, pool, spec = made("RoundRobin")
    assert [w for w, _ in await sent(here, pool, spec, 4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(("similarity", "expected"), [(0.6, 0), (0.8, 10), (0.96, 25)])
async def test_nirvana_goes_by_similarity(similarity: float, expected: int) -> None:
    here, pool, spec = made("Nirvana", similarity)
    assert [k for _, k in await sent(here, pool, spec)] == [expected]


async def test_argus_sends_to_the_worker_of_the_planned_level() -> None:
    here, pool, spec = made("Argus")
    levels = tuple(LevelPlan(k, int(k in (0, 20)), 0.0) for k in LADDER)
    here.plan = Plan(1, 0.0, levels, 0.0, "Test", "", route=IDENTITY)
    # No worker is at K = 10: the nearest slower level has one.
    assert await sent(here, pool, spec) == [("a", 0)]
    here.plan = Plan(2, 0.0, levels, 0.0, "Test", "", route=TEN_TO_TWENTY)
    assert (await sent(here, pool, spec))[-1] == ("b", 20)


async def test_proteus_goes_by_the_shares() -> None:
    here, pool, spec = made("Proteus")
    here.plan = Plan(1, 0.0, (LevelPlan(0, 1, 0.2), LevelPlan(20, 1, 0.8)), 0.0, "Test", "")
    assert await sent(here, pool, spec) == [("b", 20)]
    here.plan = Plan(2, 0.0, (LevelPlan(0, 1, 0.8), LevelPlan(20, 1, 0.2)), 0.0, "Test", "")
    assert (await sent(here, pool, spec))[-1] == ("a", 0)


async def test_clipper_ht_takes_the_largest_level_above_the_floor() -> None:
    here, pool, spec = made("ClipperHT", similarity=0.95)
    assert await sent(here, pool, spec) == [("a", 25)]
    await here.generate(job(spec, min_quality=0.98), Events())
    assert pool.sent[-1][1].skipped_steps == 15
    # The latents of a worker that failed are out of reach: only full generation is left.
    pool.matches = [Match("e", "a", 0.95, LADDER[1:])]
    pool.scripts["again"] = [failing()]
    image = await here.generate(job(spec, "again"), Events())
    assert image.attempts == 2
    assert [(w, r.skipped_steps) for w, r in pool.sent[-2:]] == [("a", 25), ("b", 0)]


async def test_a_retry_that_no_worker_is_left_for_ends_and_holds_up_nobody() -> None:
    here, pool, spec = made("ClipperHA")
    blocked = asyncio.Event()

    async def held(request: worker_pb2.WorkerGenerateRequest) -> int:
        await blocked.wait()
        return 0

    pool.scripts = {"first": [held], "second": [held], "again": [failing()]}
    first, on_b = (
        asyncio.create_task(here.generate(job(spec, p), Events())) for p in ("first", "second")
    )
    await until(lambda: len(pool.sent) == 2)
    again = asyncio.create_task(here.generate(job(spec, "again"), Events()))
    await until(lambda: len(here.gate) == 1)
    first.cancel()
    await until(lambda: len(pool.sent) == 3 and len(here.gate) == 1)  # a failed it, b is busy
    image = await here.generate(job(spec, "another"), Events())
    assert image.worker == "a"
    here.fleet.lost("b", 100.0)
    here.gate.pump()
    with pytest.raises(RequestError, match="tried a") as error:
        await again
    assert error.value.reason == "worker-failed"
    on_b.cancel()


async def test_the_backlog_price_does_not_listen_to_the_plan() -> None:
    plan = Plan(1, 0.0, (), 20.0, "Test", "")
    for policy, expected in (("QualityAware", 25), ("BacklogPrice", 0)):
        here, pool, spec = made(policy, similarity=0.97, levels=(0, 0))
        here.plan = plan
        assert (await sent(here, pool, spec))[0][1] == expected, policy


async def test_the_prompt_agnostic_policy_knows_the_mean_of_the_prompts() -> None:
    here, pool, spec = made("PromptAgnostic", similarity=0.5)
    await sent(here, pool, spec)
    pool.matches = [Match("e", "b", 0.9, LADDER[1:])]
    await sent(here, pool, spec)
    means = here.view().mean_quality
    assert means["", 0] == 1.0
    assert means["", 25] == pytest.approx(
        (PREDICTOR.quality(0.5)[-1] + PREDICTOR.quality(0.9)[-1]) / 2
    )


async def test_dispatches_are_counted() -> None:
    here, pool, spec = made("QualityAware")
    pool.scripts["twice"] = [failing()]
    await asyncio.gather(*(here.generate(job(spec, p), Events()) for p in ("once", "twice")))
    assert here.view().dispatched == 3


async def test_the_report_counts_prompts_by_optimal_k(tmp_path) -> None:
    here, pool, spec = made("Argus")
    await sent(here, pool, spec, 2)
    pool.matches = [Match("e", "b", 0.96, LADDER[1:])]
    await sent(here, pool, spec)
    pool.matches = []
    await sent(here, pool, spec)
    report = Control(here, pool, tmp_path, clock=Clock()).report()
    assert dict(zip(report.skipped_steps, report.optimal_by_level, strict=True)) == {
        **dict.fromkeys(LADDER, 0),
        0: 1,
        10: 2,
        25: 1,
    }
