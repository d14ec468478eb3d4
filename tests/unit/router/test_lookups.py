"""Look-ups on a shard: few calls, each with who has come meanwhile; nobody waits beyond their time."""

from __future__ import annotations

import asyncio

from gesso.rpc.v1 import worker_pb2
from gesso_router.lookups import MOST_CALLS, MOST_QUERIES, Answer, Lookups, Metadata


class Shard:
    """Answers each query with an entry of its tenant's name, once it may."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.seconds: list[float] = []
        self.metadata: list[Metadata] = []
        self.may_answer = asyncio.Event()
        self.answers = True
        self.short = 0

    async def __call__(
        self, request: worker_pb2.LookupRequest, seconds: float, metadata: Metadata
    ) -> worker_pb2.LookupResponse | None:
        self.calls.append([q.tenant for q in request.queries])
        self.seconds.append(seconds)
        self.metadata.append(metadata)
        await self.may_answer.wait()
        if not self.answers:
            return None
        found = [
            worker_pb2.Matches(matches=[worker_pb2.Match(entry_id=q.tenant)])
            for q in request.queries
        ]
        return worker_pb2.LookupResponse(answers=found[self.short :])


def ask(made: Lookups, name: str, seconds: float = 5.0) -> asyncio.Future[Answer]:
    return made.ask(worker_pb2.LookupQuery(tenant=name), seconds)


def entry(answer: Answer) -> str | None:
    return None if answer is None else answer.matches[0].entry_id


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def in_calls_of_their_own(
    made: Lookups, seconds: float = 5.0
) -> list[asyncio.Future[Answer]]:
    """So many prompts that no further call is made."""
    asked = []
    for i in range(MOST_CALLS):
        asked.append(ask(made, f"first{i}", seconds))
        await settled()
    return asked


async def test_who_comes_while_calls_are_under_way_shares_the_next() -> None:
    shard = Shard()
    made = Lookups(shard)
    first = await in_calls_of_their_own(made)
    rest = [ask(made, f"n{i}") for i in range(MOST_QUERIES + 3)]
    await settled()
    assert shard.calls == [[f"first{i}"] for i in range(MOST_CALLS)]
    shard.may_answer.set()
    answers = await asyncio.gather(*first, *rest)
    names = [f"first{i}" for i in range(MOST_CALLS)] + [f"n{i}" for i in range(MOST_QUERIES + 3)]
    assert [entry(a) for a in answers] == names
    assert [len(call) for call in shard.calls[MOST_CALLS:]] == [MOST_QUERIES, 3]


async def test_a_shard_that_hangs_keeps_nobody_beyond_their_time() -> None:
    shard = Shard()
    made = Lookups(shard)
    hung = await in_calls_of_their_own(made, 0.05)
    waiting = ask(made, "c", 0.02)
    assert await asyncio.gather(*hung, waiting) == [None] * (MOST_CALLS + 1)
    shard.may_answer.set()
    # Who has given up is not asked for.
    assert entry(await ask(made, "d")) == "d"
    assert "c" not in {name for call in shard.calls for name in call}


async def test_a_client_that_leaves_is_not_asked_for() -> None:
    shard = Shard()
    made = Lookups(shard)
    await in_calls_of_their_own(made)
    gone, stays = ask(made, "gone"), ask(made, "stays")
    await settled()
    gone.cancel()
    await settled()
    shard.may_answer.set()
    assert entry(await stays) == "stays"
    assert "gone" not in {name for call in shard.calls for name in call}


async def test_a_shard_that_fails_or_answers_others_has_not_answered() -> None:
    shard = Shard()
    shard.may_answer.set()
    made = Lookups(shard)
    shard.answers = False
    assert await ask(made, "a") is None
    shard.answers, shard.short = True, 1
    assert await ask(made, "a") is None
    shard.short = 0
    assert entry(await ask(made, "a")) == "a"


async def test_closing_ends_what_is_under_way() -> None:
    shard = Shard()
    made = Lookups(shard)
    under_way = [ask(made, str(i), 60.0) for i in range(4)]
    await settled()
    made.close()
    assert await asyncio.wait_for(asyncio.gather(*under_way), 1.0) == [None] * 4


async def test_a_call_goes_on_with_the_trace_of_its_first_query() -> None:
    shard = Shard()
    made = Lookups(shard)
    await in_calls_of_their_own(made)
    asked = [
        made.ask(worker_pb2.LookupQuery(tenant=name), 5.0, (("traceparent", name),))
        for name in ("a", "b")
    ]
    shard.may_answer.set()
    await asyncio.gather(*asked)
    assert shard.metadata[-1] == (("traceparent", "a"),)
