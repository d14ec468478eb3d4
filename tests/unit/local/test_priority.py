"""Who starts up yields the processor, and takes it when it serves; who is told to yield always does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gesso_operator.local.priority import YIELDING, Priority

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="this kernel knows no sessions' niceness"
)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


def session_niceness(pid):
    return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])


def test_who_serves_no_longer_yields(sleeper):
    priority = Priority(sleeper, 0)
    assert session_niceness(sleeper) == YIELDING
    priority.keep(serving=True)
    assert session_niceness(sleeper) == 0
    assert os.getpriority(os.PRIO_PROCESS, sleeper) == 0
    priority.keep(serving=False)
    assert session_niceness(sleeper) == YIELDING


def test_who_always_yields_does_so_by_thread_too(sleeper):
    priority = Priority(sleeper, YIELDING)
    priority.keep(serving=True)
    assert session_niceness(sleeper) == YIELDING
    assert os.getpriority(os.PRIO_PROCESS, sleeper) == YIELDING


def test_what_may_not_be_set_yet_is_set_later(sleeper, monkeypatch):
    priority = Priority(sleeper, 0)
    write = Path.write_text

    def too_often(path, text):
        raise BlockingIOError

    monkeypatch.setattr(Path, "write_text", too_often)
    priority.keep(serving=True)
    monkeypatch.setattr(Path, "write_text", write)
    assert session_niceness(sleeper) == YIELDING
    priority.keep(serving=True)
    assert session_niceness(sleeper) == 0


def test_a_process_that_is_gone_is_no_fault():
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    Priority(process.pid, YIELDING).keep(serving=True)
