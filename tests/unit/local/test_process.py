"""One process under supervision: it comes back, it is given up, it is killed when it will not go."""

import asyncio
import os
import sys

import psutil
import pytest

from gesso_operator.local.process import ManagedProcess, StartError
from gesso_operator.local.restarts import RestartPolicy
from gesso_operator.logs import Log

FAST = RestartPolicy(first_s=0.01, most_s=0.02, budget=3, settled_s=1000)
SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1], 'w').close(); time.sleep(600)"
)


class Silent(Log):
    def _write(self, level, event, fields):
        pass


async def always(address):
    return True


def managed(tmp_path, code, healthy=always, **more):
    return ManagedProcess(
        "p",
        lambda address: [sys.executable, "-c", code, str(tmp_path / "mark")],
        lambda: "127.0.0.1:1",
        healthy,
        tmp_path / "p.log",
        Silent("test"),
        os.environ,
        policy=FAST,
        **more,
    )


async def until(holds, seconds=20.0):
    """Processes tell nothing of their own accord; they can only be polled."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_killed_process_is_started_again_and_told_of(tmp_path):
    changes = []
    process = managed(tmp_path, SLEEP, on_change=lambda: changes.append(process.serving))
    await process.start()
    await process.until_serving()
    minding = asyncio.create_task(process.supervise())
    first = process.pid
    psutil.Process(first).kill()
    await until(lambda: process.pid not in (0, first) and process.serving)
    assert process.restarts == 1
    assert changes == [False, True]
    again = process.pid
    await process.stop()
    await minding
    assert process.pid == 0
    assert not psutil.pid_exists(again)


async def test_process_that_keeps_dying_is_given_up(tmp_path):
    process = managed(tmp_path, "raise SystemExit('no luck')")
    await process.start()
    await asyncio.wait_for(process.supervise(), 20)
    assert process.given_up
    assert process.restarts == FAST.budget
    assert process.message == "given up after 3 restarts: p exited with code 1: no luck"


async def test_end_before_health_is_an_error_in_its_own_words(tmp_path):
    async def never(address):
        return False

    process = managed(tmp_path, "raise SystemExit('no model')", never)
    await process.start()
    with pytest.raises(StartError, match="p exited with code 1: no model"):
        await asyncio.wait_for(process.until_serving(), 20)


async def test_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    process = managed(tmp_path, STUBBORN)
    await process.start()
    await until((tmp_path / "mark").exists)
    pid = process.pid
    await asyncio.wait_for(process.stop(grace_s=0.1), 20)
    assert not psutil.pid_exists(pid)


async def test_process_that_stops_answering_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("gesso_operator.local.process.LIVENESS_SECONDS", 0.01)
    answers = True

    async def healthy(address):
        return answers

    process = managed(tmp_path, SLEEP, healthy)
    await process.start()
    await process.until_serving()
    first = process.pid
    minding = asyncio.create_task(process.supervise())
    answers = False
    await until(lambda: process.pid not in (0, first))
    assert process.restarts == 1
    await process.stop()
    await minding


async def test_restarted_process_that_never_serves_counts_as_dead(tmp_path):
    async def never(address):
        return False

    process = managed(tmp_path, SLEEP, never, start_seconds=0.05)
    await process.start()
    await asyncio.wait_for(process.supervise(), 30)
    assert process.given_up
