"""How long a worker takes for a request, and what it tells of a device that does not come round."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2
from gesso_worker.defaults import LONGEST_S
from gesso_worker.holder import ModelHolder
from gesso_worker.requests import Limits
from gesso_worker.servicer import DEFAULT_DEADLINE_S, WorkerServicer

LADDER = (0, 5)


class TakenError(Exception):
    pass


def servicer(deadlines: list[float]) -> WorkerServicer:
    """Notes the seconds that a job is given, and takes none."""

    def accept(request: Any, sink: Any) -> Any:
        deadlines.append(request.deadline_s - time.monotonic())
        raise TakenError

    serving = SimpleNamespace(
        model="",
        limits=Limits(64, 64, 2.0, LADDER),
        fingerprint=lambda spec: "f",
        default_fingerprint="f",
        caches=False,
        engine=SimpleNamespace(accept=accept, cancel=lambda job: None),
    )
    holder: Any = SimpleNamespace(names=("",), changing=False, serving=serving)
    return WorkerServicer("w", LADDER, holder)


@pytest.mark.parametrize(
    ("remaining", "given"),
    [
        # The longest deadline that a service may have, and what a router waits beyond it.
        (7200.0, 7200.0),
        (12.0, 12.0),
        (1e6, LONGEST_S),
        (None, DEFAULT_DEADLINE_S),
    ],
)
def test_a_job_has_the_time_that_its_caller_gives(remaining: float | None, given: float) -> None:
    deadlines: list[float] = []

    async def ask() -> None:
        context: Any = SimpleNamespace(
            time_remaining=lambda: remaining, invocation_metadata=lambda: ()
        )
        asked = worker_pb2.WorkerGenerateRequest(request_id="r", prompt="p")
        with pytest.raises(TakenError):
            async for _ in servicer(deadlines).Generate(asked, context):
                pass

    asyncio.run(ask())
    assert deadlines == [pytest.approx(given, abs=1.0)]


@pytest.mark.parametrize(
    ("silent", "step", "hung"),
    [(9.0, 0.1, 0.0), (11.0, 0.1, 11.0), (11.0, 1.0, 0.0), (21.0, 1.0, 21.0)],
)
def test_a_device_hangs_once_it_is_silent_for_long_and_for_many_steps(
    silent: float, step: float, hung: float
) -> None:
    holder = ModelHolder(SimpleNamespace(), lambda *_: None)  # type: ignore[arg-type]
    assert holder.hung_seconds(10.0) == 0.0
    serving: Any = SimpleNamespace(
        engine=SimpleNamespace(silent_seconds=lambda: silent),
        profile=Profile("fake", 50, 0.1, 0.1, (step / 2, step)),
    )
    holder.serving = serving
    assert holder.hung_seconds(10.0) == hung
    holder.changing = True
    assert holder.hung_seconds(10.0) == 0.0
