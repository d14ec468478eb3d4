"""The main job with the real router, workers and tiny model: up, generate, lose a worker, down."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gesso.api.local_state import StateDir
from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_names
from gesso_operator.local.ports import free_port

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "tiny.yaml"
PNG = b"\x89PNG\r\n\x1a\n"
DEADLINE_S = 90.0

pytestmark = [
    pytest.mark.skipif(
        not {TINY_SDXL, TINY_CLIP} <= set(builtin_names()),
        reason="the builtin models are not there",
    ),
    pytest.mark.timeout(300),
]


class Cli:
    """`gesso` in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.place = StateDir(folder / ".gesso" / "tiny")

    def __call__(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "gesso.cli.main", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def until(self, holds):
        end = time.monotonic() + DEADLINE_S
        while not (found := holds()):
            assert time.monotonic() < end, f"not in {DEADLINE_S} s: {self('status').stdout}"
            time.sleep(0.1)
        return found

    def family(self):
        supervisor = psutil.Process(self.place.read_state().pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def pid(self, name):
        return next(c.pid for c in self.place.read_state().children if c.name == name)

    def generate(self, prompt, file, *more):
        done = self("generate", prompt, "-o", file, *more)
        assert done.returncode == 0, done.stderr
        similarity = float(re.search(r"similarity ([0-9.]+)", done.stdout)[1])
        return similarity, (self.folder / file).read_bytes()


@pytest.fixture(scope="module")
def gesso(tmp_path_factory):
    """A service that is up; whatever happens, nothing of it outlives the tests."""
    cli = Cli(tmp_path_factory.mktemp("fleet"))
    # A deadline that a busy test machine keeps as well: these tests are not about speed.
    patient = SAMPLE.read_text().replace("latencySeconds: 4", "latencySeconds: 120")
    (cli.folder / "tiny.yaml").write_text(patient)
    ports = ("--grpc-port", str(free_port()), "--http-port", str(free_port()))
    up = cli("up", "tiny.yaml", *ports)
    assert up.returncode == 0, up.stderr
    family = cli.family()
    assert len(family) == 4
    yield cli
    if cli.place.alive:
        cli("down")
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        process.kill()


def test_image_is_served_and_its_latents_are_found_again(gesso):
    prompt = "a large red star above a small blue ring"
    similarity, image = gesso.generate(prompt, "star.png", "--seed", "3")
    assert (similarity, image[:8]) == (0, PNG)
    similarity, again = gesso.generate(prompt, "again.png", "--seed", "3")
    assert (similarity, again[:8]) == (1, PNG)
    status = gesso("status")
    assert status.returncode == 0
    assert status.stdout.startswith("tiny: Ready | 2/2 workers | mix ")
    assert "SLO" in status.stdout


def test_bad_request_is_told_and_serving_goes_on(gesso):
    done = gesso("generate", "")
    assert done.returncode == 2
    assert "prompt" in done.stderr
    assert gesso.generate("a green square", "square.png")[1][:8] == PNG


def test_killed_worker_comes_back_and_serving_goes_on(gesso):
    before = gesso.pid("worker-0")
    os.kill(before, signal.SIGKILL)
    assert gesso.generate("a blue ring", "ring.png")[1][:8] == PNG
    gesso.until(
        lambda: (
            (s := gesso.place.read_status())
            and s.workers.ready == 2
            and s.workers.members[0].restarts == 1
        )
    )
    assert gesso.pid("worker-0") != before
    assert gesso("status").stdout.startswith("tiny: Ready | 2/2 workers")
    assert gesso.generate("a red circle", "circle.png")[1][:8] == PNG


def test_killed_router_comes_back_with_its_workers(gesso):
    before = gesso.pid("router")
    os.kill(before, signal.SIGKILL)
    gesso.until(lambda: gesso.pid("router") not in (0, before))
    gesso.until(lambda: gesso("generate", "a red star", "-o", "back.png").returncode == 0)
    assert gesso("status").returncode == 0


def test_down_leaves_nothing_running(gesso):
    family = gesso.family()
    down = gesso("down")
    assert down.returncode == 0, down.stderr
    assert down.stdout.strip() == "tiny is down"
    gone, alive = psutil.wait_procs(family, timeout=5)
    assert (len(gone), alive) == (4, [])
    assert not gesso.place.path.exists()
    again = gesso("down")
    assert again.returncode == 1
    assert "no service is up here" in again.stderr


def test_model_that_cannot_be_loaded_is_told_and_nothing_stays_up(tmp_path):
    cli = Cli(tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text(SAMPLE.read_text().replace("builtin://tiny-sdxl", str(tmp_path / "nowhere")))
    ports = ("--grpc-port", str(free_port()), "--http-port", str(free_port()))
    up = cli("up", str(bad), *ports)
    assert up.returncode != 0
    assert "nowhere" in up.stderr
    assert not cli.place.alive
    assert not any(c.pid for c in cli.place.read_state().children)
