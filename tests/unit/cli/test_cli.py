"""The command: what it prints, and what it says when it cannot."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gesso.api import ServiceStatus, SloStatus, WorkersStatus, transition
from gesso.api.local_state import LocalState, StateDir
from gesso.cli import lifecycle
from gesso.cli.console import CliError
from gesso.cli.find import find_state_dir, running_state
from gesso.cli.generate import Wish, format_of, generate
from gesso.cli.main import main
from gesso.cli.status import describe, status_line
from gesso_operator.local.ports import free_port

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def test_validate_tells_what_is_served(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "validate", str(SAMPLE))
    assert code == 0
    assert "tiny serves builtin://tiny-sdxl with 2 workers at K 0,5,10,15,20,25 of 50 steps" in out


def test_validate_tells_each_fault_in_a_line(monkeypatch, capsys, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(SAMPLE.read_text().replace("25]", "50]").replace("min: 1", "min: 5"))
    code, out, err = run(monkeypatch, capsys, "validate", str(bad))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert "spec.variants[0].skippedSteps[5]: 50 is not allowed" in err


@pytest.mark.parametrize("slo", ["soon", "0", "-1", "1e9"])
def test_a_demo_with_an_slo_that_is_none_is_refused_at_once(monkeypatch, capsys, slo):
    code, out, err = run(monkeypatch, capsys, "demo", f"--slo={slo}")
    assert (code, out) == (2, "")
    assert err.startswith(f"gesso: --slo: {slo} is not allowed: a multiple of the K = 0 latency")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [("status",), ("down",), ("generate", "a star")])
def test_nothing_up_is_said(monkeypatch, capsys, command):
    code, _, err = run(monkeypatch, capsys, *command)
    assert code == 1
    assert "no service is up here: `gesso up FILE` starts one" in err


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("up", str(SAMPLE)), 2, "--state-dir file: Not a directory"),
        (("down",), 1, "nothing is up in file"),
        (("status",), 1, "nothing is up in file"),
    ],
)
def test_a_state_directory_that_is_a_file_is_said(monkeypatch, capsys, command, code, said):
    Path("file").write_text("mine")
    ended, out, err = run(monkeypatch, capsys, *command, "--state-dir", "file")
    assert ended == code
    assert said in out + err
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "words", [("generate", "x", "--seed", "-1"), ("up",), ("up", "f", "--grpc-port", "70000")]
)
def test_bad_flags_are_usage_errors(monkeypatch, capsys, words):
    assert run(monkeypatch, capsys, *words)[0] == 2


def test_starting_the_command_imports_nothing_heavy():
    code = (
        "import sys, gesso.cli.main\n"
        "heavy = {'torch', 'grpc', 'scipy', 'numpy', 'diffusers', 'gesso_operator', 'gesso_router', "
        "'gesso_worker', 'gesso_simulator'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def state(place, phase="Ready", name="tiny", pid=4_000_000):
    place.create()
    local = LocalState(
        name=name,
        phase=phase,
        pid=pid,
        started_at=NOW,
        grpc="127.0.0.1:1",
        http="127.0.0.1:2",
        message="m",
    )
    place.write_state(local)
    return local


def test_only_service_is_found_and_several_must_be_named():
    state(StateDir.of("tiny"))
    assert find_state_dir(None, None).path == Path(".gesso/tiny")
    state(StateDir.of("other"))
    with pytest.raises(
        CliError, match=r"several services are up: other, tiny; name one with --name"
    ):
        find_state_dir(None, None)
    assert find_state_dir("other", None).path == Path(".gesso/other")
    with pytest.raises(CliError, match=r"no service 'x' is up here; up: other, tiny"):
        find_state_dir("x", None)


def test_running_service_is_preferred_to_a_dead_one():
    state(StateDir.of("dead"))
    state(StateDir.of("tiny"))
    lock = StateDir.of("tiny").try_lock()
    assert find_state_dir(None, None).path.name == "tiny"
    os.close(lock)


def test_dead_supervisor_is_said():
    place = StateDir.of("tiny")
    state(place)
    with pytest.raises(CliError, match="tiny is not running: its supervisor"):
        running_state(place)
    line, well = describe(place, place.read_state(), None, NOW)
    assert not well
    assert "Dead: supervisor (pid 4000000) is gone" in line


def test_leftovers_of_a_dead_service_are_removed(capsys):
    place = StateDir.of("tiny")
    state(place)
    lifecycle.down(place)
    assert "nothing ran" in capsys.readouterr().out
    assert not Path(".gesso").exists()


def well():
    ready = transition((), "Ready", "True", "Serving", "serving", NOW)
    plan = transition((), "PlanReady", "True", "LoadRose", "load 5 images/s", NOW)
    slo = transition((), "SLOMet", "False", "TooManyLate", "", NOW)
    return ServiceStatus(
        conditions=(ready, plan, slo),
        observed_at=NOW,
        mix="0:2",
        desired_mix="0:1,10:1",
        slo=SloStatus(attainment=0.9, latency_p95_seconds=3.25),
        quality=0.984,
        workers=WorkersStatus(desired=2, ready=2),
    )


def test_status_line_has_health_mix_slo_quality_and_reason():
    assert status_line("tiny", well()) == (
        "tiny: Ready | 2/2 workers | mix 0:2 (wanted 0:1,10:1) | SLO 90.0% MISSED, p95 3.25 s | "
        "quality 0.984 | LoadRose: load 5 images/s",
        True,
    )


def test_status_line_of_trouble_gives_the_reason_for_it():
    down = transition((), "Ready", "False", "RouterUnreachable", "Report: UNAVAILABLE", NOW)
    line, ready = status_line("tiny", ServiceStatus(conditions=(down,)))
    assert not ready
    assert line.startswith("tiny: NotReady (RouterUnreachable)")
    assert line.endswith("RouterUnreachable: Report: UNAVAILABLE")


def test_old_status_of_a_running_supervisor_is_stale():
    place = StateDir.of("tiny")
    local = state(place)
    lock = place.try_lock()
    fresh, _ = describe(place, local, well(), NOW + timedelta(seconds=10))
    stale, ready = describe(place, local, well(), NOW + timedelta(seconds=100))
    os.close(lock)
    assert "STALE" not in fresh
    assert "STALE: last seen 100 s ago" in stale
    assert not ready


def test_image_format_follows_the_suffix_or_the_flag():
    assert format_of(Wish("x", Path("a.JPG"))) == "jpeg"
    assert format_of(Wish("x", Path("a.bin"), image_format="webp")) == "webp"
    with pytest.raises(CliError, match=r"suffix '\.gif' is not allowed: \.png"):
        format_of(Wish("x", Path("a.gif")))
    with pytest.raises(CliError, match=r"--format 'tiff' is not allowed: png, jpeg, webp"):
        format_of(Wish("x", Path("a.png"), image_format="tiff"))


def test_router_that_is_not_there_is_said():
    with pytest.raises(CliError, match="no router answers at"):
        generate(Wish("x", Path("a.png")), f"127.0.0.1:{free_port()}", 20)
