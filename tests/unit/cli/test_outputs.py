"""Files that a command is to write: what is refused before its work, and what is told after."""

import errno
import os
import stat

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from gesso.cli.console import CliError
from gesso.cli.main import app
from gesso.outputs import PICTURES, OutputError, check_file, check_picture, make_folder, writing
from gesso_simulator import command
from gesso_simulator.bench import main as bench
from gesso_simulator.demo import main as demo
from gesso_worker.profiler import service as profiler

SERVICE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: small}
spec:
  model: {source: builtin://tiny-sdxl, width: 64, height: 64}
  slo: {latencySeconds: 4}
  workers: {max: 1}
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "service.yaml").write_text(SERVICE)
    (tmp_path / "t.csv").write_text("t_s,count\n0,2\n1,3\n")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("folder", "a file is needed, this is a directory"),
        ("none/o.json", "its folder is not there"),
        ("file/o.json", "its folder is not there"),
        ("a" * 300, "a file that can be written is needed (File name too long)"),
        # A folder that may be written by all that is known of it, and cannot.
        ("/proc/o.json", "a file that can be written is needed (No such file or directory)"),
    ],
)
def test_where_no_file_can_be_written_is_told(tmp_path, name, problem):
    path = tmp_path / name
    with pytest.raises(ValueError) as caught:
        check_file("--json", path)
    assert str(caught.value) == f"--json: {path} is not allowed: {problem}"


def test_what_may_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "loose").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(p.name for p in tmp_path.iterdir())
    for name in ("file", "new.json", "loose", "pipe", "/dev/stdout", "folder/new.json"):
        check_file("--json", tmp_path / name)
    check_file("--json", None)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_what_may_not_be_written_is_told(tmp_path):
    (tmp_path / "file").chmod(stat.S_IRUSR)
    (tmp_path / "folder").chmod(stat.S_IRUSR | stat.S_IXUSR)
    for name in ("file", "folder/o.json"):
        with pytest.raises(ValueError, match="is needed"):
            check_file("--json", tmp_path / name)
    with pytest.raises(ValueError, match="a folder that may be written is needed"):
        make_folder("--out", tmp_path / "folder")


@pytest.mark.parametrize("suffix", PICTURES)
def test_every_picture_that_may_be_asked_for_can_be_drawn(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    check_picture("--plot", path)
    Figure(figsize=(1, 1)).savefig(path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("name", ["x.foo", "x", ".png"])
def test_a_picture_that_nobody_draws_is_told(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"--plot: .* is not allowed: its suffix is one of \.eps, "
    ):
        check_picture("--plot", tmp_path / name)


BENCH = ("bench", "--rate", "5", "--seconds", "1", "--url", "http://127.0.0.1:9")
SIMULATE = ("simulate", "--trace", "t.csv", "--no-bounds")
PROFILE = ("profile", "--service", "service.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*BENCH, "--json", "folder"), "--json: folder is not allowed: a file"),
        ((*BENCH, "--plot", "folder.png"), "--plot: folder.png is not allowed: a file"),
        ((*BENCH, "--plot", "x.foo"), "--plot: x.foo is not allowed: its suffix is one of"),
        ((*SIMULATE, "--json", "folder"), "--json: folder is not allowed: a file"),
        ((*SIMULATE, "--plot", "folder"), "--plot: folder is not allowed: a file"),
        ((*SIMULATE, "--requests", "folder"), "--requests: folder is not allowed: a file"),
        ((*PROFILE, "-o", "folder"), "--output: folder is not allowed: a file"),
        ((*PROFILE, "--plot", "x.foo"), "--plot: x.foo is not allowed: its suffix is one of"),
        (("demo", "--out", "file"), "--out: file is not allowed: a folder is needed (File exists)"),
        (
            ("demo", "--out", "file/a"),
            "--out: file/a is not allowed: a folder is needed (Not a dir",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(monkeypatch, tmp_path, words, said):
    def works(*_, **__):
        raise AssertionError("it began")

    for module, name in (
        (bench, "run"),
        (command, "play"),
        (profiler, "measure_service"),
        (demo, "_demo"),
    ):
        monkeypatch.setattr(module, name, works)
    (tmp_path / "folder.png").mkdir()
    caught = CliRunner().invoke(app, list(words)).exception
    assert isinstance(caught, CliError)
    assert str(caught).startswith(said)
    assert caught.code == 2


@pytest.mark.parametrize(
    ("words", "option", "table"),
    [
        ((*BENCH, "--json", "late"), "--json", "offered"),
        ((*SIMULATE, "--requests", "late"), "--requests", "QualityAware"),
    ],
)
def test_a_full_disk_is_told_in_a_line_after_the_table(monkeypatch, words, option, table):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    monkeypatch.setattr(command, "write_requests", full)
    done = CliRunner().invoke(app, list(words))
    assert table in done.stdout
    assert isinstance(done.exception, CliError)
    assert str(done.exception) == f"{option}: late could not be written: No space left on device"
    assert done.exception.code == 1


def test_other_faults_pass_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="mine"), writing("--json", tmp_path):
        raise ValueError("mine")
    with pytest.raises(OutputError, match="--json: "), writing("--json", tmp_path):
        tmp_path.write_text("no file")
