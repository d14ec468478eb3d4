"""The supervisor as a process, over fake routers and workers: comes up, repairs, leaves nothing running."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gesso.api.local_state import StateDir
from gesso_operator.local.ports import free_port, in_use
from gesso_operator.local.process import last_line
from gesso_operator.local.supervisor import main

FAKES = str(Path(__file__).parent / "fakes")
DEADLINE_S = 30.0


class Supervisor:
    def __init__(self, state, service, *flags, fake=""):
        self.place = StateDir(state)
        self.grpc = free_port()
        path = os.pathsep.join(p for p in (FAKES, os.environ.get("PYTHONPATH", "")) if p)
        command = [
            *(sys.executable, "-m", "gesso_operator.local.supervisor", "--service", str(service)),
            *(
                "--state-dir",
                str(state),
                "--grpc-port",
                str(self.grpc),
                "--http-port",
                str(free_port()),
            ),
            *("--worker-module", "fake_worker", "--router-module", "fake_router", *flags),
        ]
        environment = {**os.environ, "PYTHONPATH": path, "FAKE_WORKER": fake}
        self.process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def until(self, holds):
        """Waits for a condition on the files that the supervisor writes; they can only be polled."""
        end = time.monotonic() + DEADLINE_S
        while not (found := holds()):
            assert time.monotonic() < end, (
                f"not in {DEADLINE_S} s; supervisor: {self.process.poll()}"
            )
            time.sleep(0.02)
        return found

    def ready(self):
        return self.until(lambda: (s := self.place.read_state()) and s.phase == "Ready" and s)

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def applied(self):
        lines = (self.place.log("plans")).read_text().splitlines()
        return json.loads(lines[-1]) if lines else {"workers": {}}

    def end(self):
        self.process.terminate()
        return self.process.communicate(timeout=DEADLINE_S)[1]


@pytest.fixture
def start(tmp_path, service_file):
    started = []

    def begin(*flags, fake=""):
        started.append(Supervisor(tmp_path / "state", service_file, *flags, fake=fake))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_comes_up_repairs_a_killed_worker_and_goes_down(start):
    fleet = start()
    state = fleet.ready()
    assert {c.name for c in state.children} == {"router", "worker-0", "worker-1"}
    first = fleet.applied()["workers"]
    assert set(first) == {"worker-0", "worker-1"}
    family = fleet.family()
    assert len(family) == 3

    victim = next(c for c in state.children if c.name == "worker-1")
    os.kill(victim.pid, signal.SIGKILL)
    fleet.until(lambda: set(fleet.applied()["workers"]) == {"worker-0"})
    fleet.until(lambda: set(fleet.applied()["workers"]) == {"worker-0", "worker-1"})
    # The same name at a new address, and the level was sent again.
    assert fleet.applied()["workers"]["worker-1"][0] != first["worker-1"][0]
    status = fleet.until(
        lambda: (s := fleet.place.read_status()) and s.condition("Ready").status == "True" and s
    )
    assert status.workers.members[1].restarts == 1

    family += fleet.family()
    log = fleet.end()
    assert fleet.process.returncode == 0
    assert not any(p.is_running() for p in family)
    assert fleet.place.read_state() is None
    assert all(json.loads(line)["event"] for line in log.splitlines())


def test_children_die_with_a_supervisor_that_is_killed(start):
    fleet = start()
    fleet.ready()
    family = fleet.family()
    fleet.process.kill()
    gone, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert (len(gone), alive) == (3, [])
    assert not fleet.place.alive


def test_worker_that_cannot_load_its_model_is_told_in_its_own_words(start):
    fleet = start(fake="no-model")
    log = fleet.process.communicate(timeout=DEADLINE_S)[1]
    assert fleet.process.returncode == 1
    last = json.loads(log.splitlines()[-1])
    assert "exited with code 2: " in last["message"]
    assert "model source 'nowhere' is not there" in last["message"]
    assert fleet.place.read_state().phase == "Failed"
    assert not any(c.pid for c in fleet.place.read_state().children)


def test_worker_that_never_serves_is_given_up_at_the_deadline(start):
    fleet = start("--start-timeout", "2", fake="mute")
    log = fleet.process.communicate(timeout=DEADLINE_S)[1]
    assert fleet.process.returncode == 1
    assert "not serving after 2 s: worker-0, worker-1" in log


def refusal(capsys, *flags):
    code = main(list(flags))
    return code, json.loads(capsys.readouterr().err.splitlines()[-1])["message"]


def test_port_in_use_is_named_with_its_flag(tmp_path, service_file, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = (
            "--service",
            str(service_file),
            "--state-dir",
            str(tmp_path),
            "--grpc-port",
            str(port),
        )
        code, message = refusal(capsys, *flags, "--http-port", str(free_port()))
    assert code == 2
    assert message == f"port {port} is in use: choose another with --grpc-port"


def test_second_supervisor_in_one_directory_is_refused(tmp_path, service_file, capsys):
    lock = StateDir(tmp_path).try_lock()
    flags = ("--service", str(service_file), "--state-dir", str(tmp_path))
    ports = ("--grpc-port", str(free_port()), "--http-port", str(free_port()))
    code, message = refusal(capsys, *flags, *ports)
    os.close(lock)
    assert code == 2
    assert "is up already" in message


def test_bad_service_file_is_refused_before_anything_starts(tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: DiffusionService\n")
    flags = ("--service", str(bad), "--state-dir", str(tmp_path / "state"))
    code, message = refusal(capsys, *flags, "--grpc-port", "1", "--http-port", "2")
    assert code == 2
    assert "missing: required" in message
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_port_out_of_range_is_a_bad_flag(port, tmp_path, service_file, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--service", "x", "--state-dir", "y", "--grpc-port", port, "--http-port", "7080"])
    assert caught.value.code == 2
    assert "a port from 1 to 65535" in capsys.readouterr().err


def test_free_port_can_be_used():
    assert in_use(free_port()) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("loading\nerror: no such model\n\n", "error: no such model"),
        ('{"event": "x", "message": "disk full"}\n', "disk full"),
        ("", ""),
        ("x" * 1000, "x" * 397 + "..."),
    ],
    ids=["plain", "structured", "nothing", "long"],
)
def test_last_clear_line_of_a_log(tmp_path, text, told):
    log = tmp_path / "a.log"
    log.write_text("from an earlier run\n" + text)
    assert last_line(log, len("from an earlier run\n")) == told
