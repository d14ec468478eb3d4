"""Look-ups on one worker's shard: few calls at a time, each with every prompt that has come meanwhile.

The shard searches for one call after the other anyhow, and at either end a call costs several times what a
query does: the busier the router, the more prompts share one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gesso.rpc.v1 import worker_pb2

#: Calls under way at a time: one that is being answered, and one on its way.
MOST_CALLS = 2
#: Queries of a call: what a worker takes.
MOST_QUERIES = 64
#: Queries that wait; more are answered as if the shard had not.
MOST_WAITING = 1024

Metadata = tuple[tuple[str, str], ...]
#: Asks a shard, within so many seconds; None where it does not answer.
Call = Callable[
    [worker_pb2.LookupRequest, float, Metadata], Awaitable[worker_pb2.LookupResponse | None]
]
Answer = worker_pb2.Matches | None


@dataclass
class _Asked:
    query: worker_pb2.LookupQuery
    until_s: float
    answer: asyncio.Future[Answer]
    metadata: Metadata


class Lookups:
    """Of one shard."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: deque[_Asked] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._running = 0

    def ask(
        self, query: worker_pb2.LookupQuery, timeout_seconds: float, metadata: Metadata = ()
    ) -> asyncio.Future[Answer]:
        """The matches of a query to come, best first; None where there is no answer in time.

        `metadata` goes with a call whose first query this is.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if len(self._waiting) >= MOST_WAITING:
            answer.set_result(None)
            return answer
        asked = _Asked(query, loop.time() + timeout_seconds, answer, metadata)
        self._waiting.append(asked)
        if self._running < MOST_CALLS:
            self._running += 1
            runner = asyncio.create_task(self._run(), name="look-ups")
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)
        giving_up = loop.call_at(asked.until_s, _settle, answer, None)
        answer.add_done_callback(lambda _: giving_up.cancel())
        return answer

    def close(self) -> None:
        """Ends the calls under way; who waits gets no answer."""
        for runner in self._runners:
            runner.cancel()
        while self._waiting:
            _settle(self._waiting.popleft().answer, None)

    async def _run(self) -> None:
        try:
            await self._ask_all()
        finally:
            # Not when the task is called done, which is later: who comes between would wait for nobody.
            self._running -= 1

    async def _ask_all(self) -> None:
        now = asyncio.get_running_loop().time
        while self._waiting:
            batch: list[_Asked] = []
            while self._waiting and len(batch) < MOST_QUERIES:
                asked = self._waiting.popleft()
                if not asked.answer.done():  # given up, or its client has gone
                    batch.append(asked)
            if not batch:
                return
            request = worker_pb2.LookupRequest(queries=[asked.query for asked in batch])
            answers: list[Answer] = [None] * len(batch)
            try:
                seconds = max(asked.until_s for asked in batch) - now()
                response = await self._call(request, max(0.0, seconds), batch[0].metadata)
                if response is not None and len(response.answers) == len(batch):
                    answers = list(response.answers)
            finally:
                for asked, answer in zip(batch, answers, strict=True):
                    _settle(asked.answer, answer)


def _settle(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
