"""A tethered command dies with its parent, by the kernel on Linux and by polling elsewhere."""

import os
import subprocess
import sys

import psutil
import pytest

# A parent that starts a tethered sleeper, tells its pid, and waits to be killed.
PARENT = """
import os, subprocess, sys, time
from gesso_operator.local import tether
if sys.argv[1] == "elsewhere":
    code = "import sys; from gesso_operator.local.tether import mind; mind(int(sys.argv[1]), sys.argv[2:])"
    head = [sys.executable, "-c", code]
else:
    head = [sys.executable, "-m", "gesso_operator.local.tether"]
sleeper = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
subprocess.Popen([*head, str(os.getpid()), *sleeper], start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize("system", ["linux", "elsewhere"])
def test_command_dies_with_its_parent(system):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, system], stdout=subprocess.PIPE, text=True
    )
    try:
        sleeper = psutil.Process(int(parent.stdout.readline()))
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs([sleeper], timeout=20)
    parent.stdout.close()
    assert alive == []


def test_exit_code_of_the_command_is_passed_on():
    command = [sys.executable, "-c", "raise SystemExit(2)"]
    tether = [sys.executable, "-m", "gesso_operator.local.tether", str(os.getpid())]
    assert subprocess.run([*tether, *command], check=False).returncode == 2


def test_command_whose_parent_is_gone_already_does_not_start():
    command = [sys.executable, "-c", "print('started')"]
    tether = [sys.executable, "-m", "gesso_operator.local.tether", "1"]
    done = subprocess.run([*tether, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
