"""The supervisor and `gesso up` as processes, over stand-ins for router and workers that need no model."""

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
import yaml

from gesso.api import ServiceStatus
from gesso.api.local_state import StateDir
from gesso.cli import lifecycle
from gesso.cli.console import CliError
from gesso.cli.main import main
from gesso_operator.local.ports import free_port, in_use

STAND_INS = str(Path(__file__).parent / "stand_ins")
SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "tiny.yaml"
FLAGS = ("--worker-module", "stand_in_worker", "--router-module", "stand_in_router")
DEADLINE_S = 30.0


class Supervisor:
    def __init__(self, state, service, *flags, stand_in="", ports=None):
        self.place = StateDir(state)
        self.grpc, http = ports or (free_port(), free_port())
        path = os.pathsep.join(p for p in (STAND_INS, os.environ.get("PYTHONPATH", "")) if p)
        command = [
            *(sys.executable, "-m", "gesso_operator.local.supervisor", "--service", str(service)),
            *(
                "--state-dir",
                str(state),
                "--grpc-port",
                str(self.grpc),
                "--http-port",
                str(http),
            ),
            *FLAGS,
            *flags,
        ]
        environment = {**os.environ, "PYTHONPATH": path, "STAND_IN": stand_in}
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

    def applied(self, router="router"):
        lines = (self.place.router(router) / "logs" / "plans.log").read_text().splitlines()
        return json.loads(lines[-1]) if lines else {"workers": {}}

    def end(self):
        self.process.terminate()
        return self.process.communicate(timeout=DEADLINE_S)[1]


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(*flags, stand_in="", service=SAMPLE, ports=None):
        state = tmp_path / "state"
        started.append(Supervisor(state, service, *flags, stand_in=stand_in, ports=ports))
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
    assert all(json.loads(line)["message"] for line in log.splitlines())


def free_ports_in_a_row(count):
    """Two ports that are free, and so are the next ones."""
    found = []
    while len(found) < 2:
        port = free_port()
        row = range(port, port + count)
        near = any(abs(port - other) < count for other in found)
        if not near and port + count < 65536 and not any(in_use(p) for p in row):
            found.append(port)
    return tuple(found)


@pytest.fixture
def with_two_routers(tmp_path):
    service = yaml.safe_load(SAMPLE.read_text())
    service["spec"]["router"]["replicas"] = 2
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(service))
    return file


def test_two_routers_get_every_plan_and_one_alone_keeps_the_service_up(start, with_two_routers):
    grpc_port, http_port = free_ports_in_a_row(2)
    fleet = start(service=with_two_routers, ports=(grpc_port, http_port))
    state = fleet.ready()
    assert [(c.name, c.address, c.http) for c in state.routers] == [
        ("router", f"127.0.0.1:{grpc_port}", f"127.0.0.1:{http_port}"),
        ("router-1", f"127.0.0.1:{grpc_port + 1}", f"127.0.0.1:{http_port + 1}"),
    ]
    assert len(fleet.family()) == 4
    both = {"worker-0", "worker-1"}
    for name in ("router", "router-1"):
        fleet.until(lambda n=name: set(fleet.applied(n)["workers"]) == both)

    def router_ready():
        status = fleet.place.read_status()
        return status and status.condition("RouterReady")

    fleet.until(lambda: (c := router_ready()) and c.message == "2 routers answer")
    victim = state.routers[1]
    os.kill(victim.pid, signal.SIGKILL)
    seen = fleet.until(lambda: (c := router_ready()) and c.reason == "SomeRoutersDown" and c)
    assert seen.status == "True"
    assert seen.message.startswith("1 of 2 routers serve; router-1 ")
    assert fleet.place.read_status().condition("Ready").status == "True"
    # It starts anew on its own ports, and is given the plan at once.
    plans = fleet.place.router("router-1") / "logs" / "plans.log"
    before = len(plans.read_text().splitlines())
    fleet.until(lambda: (c := router_ready()) and c.reason == "RouterServes")
    fleet.until(lambda: len(plans.read_text().splitlines()) > before)
    again = fleet.until(
        lambda: (r := fleet.place.read_state().routers[1]).pid not in (0, victim.pid) and r
    )
    assert again.address == victim.address

    family = fleet.family()
    fleet.end()
    assert fleet.process.returncode == 0
    assert not any(p.is_running() for p in family)


def test_every_port_of_two_routers_is_looked_at_first(start, with_two_routers):
    grpc_port, http_port = free_ports_in_a_row(2)
    with socket.create_server(("127.0.0.1", http_port + 1)):
        fleet = start(service=with_two_routers, ports=(grpc_port, http_port))
        log = fleet.process.communicate(timeout=DEADLINE_S)[1]
    assert fleet.process.returncode == 2
    assert f"port {http_port + 1} is in use: choose another with --http-port" in log


def test_children_die_with_a_supervisor_that_is_killed(start):
    fleet = start()
    fleet.ready()
    family = fleet.family()
    fleet.process.kill()
    gone, alive = psutil.wait_procs(family, timeout=DEADLINE_S)
    assert (len(gone), alive) == (3, [])
    assert not fleet.place.alive


def test_worker_that_cannot_load_its_model_is_told_in_its_own_words(start):
    fleet = start(stand_in="no-model")
    log = fleet.process.communicate(timeout=DEADLINE_S)[1]
    assert fleet.process.returncode == 1
    last = json.loads(log.splitlines()[-1])
    assert "exited with code 2: " in last["detail"]
    assert "model source 'nowhere' is not there" in last["detail"]
    assert fleet.place.read_state().phase == "Failed"
    assert not any(c.pid for c in fleet.place.read_state().children)


def test_worker_that_never_serves_is_given_up_at_the_deadline(start):
    fleet = start("--start-timeout", "2", stand_in="mute")
    log = fleet.process.communicate(timeout=DEADLINE_S)[1]
    assert fleet.process.returncode == 1
    assert "not serving after 2 s: worker-0, worker-1" in log


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own to type commands in, where stand-ins can be found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", STAND_INS)


def run(monkeypatch, capsys, *words):
    """Exit code, stdout and stderr of `gesso WORDS`."""
    monkeypatch.setattr(sys, "argv", ["gesso", *words])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_up_generate_status_and_down(elsewhere, monkeypatch, capsys):
    grpc_port, http_port = free_port(), free_port()
    lifecycle.up(SAMPLE, grpc_port, http_port, None, False, 60, FLAGS)
    try:
        assert f"gRPC 127.0.0.1:{grpc_port}" in capsys.readouterr().out
        with pytest.raises(CliError, match="tiny is up already"):
            lifecycle.up(SAMPLE, free_port(), free_port(), None, False, 60, FLAGS)

        words = ("generate", "a red star", "-o", "star.png", "--seed", "7")
        code, out, _ = run(monkeypatch, capsys, *words)
        assert code == 0
        assert out.startswith("star.png: 64x64, K=10, similarity 0.875")
        assert "worker-0" in out
        assert out.strip().endswith("seed 7")
        assert Path("star.png").read_bytes() == b"a red star"

        code, _, err = run(monkeypatch, capsys, "generate", "")
        assert (code, err) == (
            2,
            "gesso: INVALID_ARGUMENT: prompt: '' is not allowed: 1 to 4,096 bytes\n",
        )
        code, _, err = run(monkeypatch, capsys, "generate", "too much")
        assert code == 1
        assert "retry after 250 ms" in err

        code, out, _ = run(monkeypatch, capsys, "status")
        assert code == 0
        assert out.startswith("tiny: Ready | 2/2 workers | mix 0:2")
        code, out, _ = run(monkeypatch, capsys, "status", "--json")
        assert ServiceStatus.model_validate_json(out).mix == "0:2"
    finally:
        lifecycle.down(StateDir.of("tiny"))
    assert "tiny is down" in capsys.readouterr().out
    assert not Path(".gesso").exists()


def test_port_in_use_is_named_and_nothing_stays_up(elsewhere):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CliError, match=f"port {port} is in use: choose another with --http-port"
        ):
            lifecycle.up(SAMPLE, free_port(), port, None, False, 60, FLAGS)
    assert not StateDir.of("tiny").alive


def test_worker_without_model_is_told_and_nothing_stays_up(elsewhere, monkeypatch):
    monkeypatch.setenv("STAND_IN", "no-model")
    with pytest.raises(CliError, match="model source 'nowhere' is not there"):
        lifecycle.up(SAMPLE, free_port(), free_port(), None, False, 60, FLAGS)
    assert not StateDir.of("tiny").alive
