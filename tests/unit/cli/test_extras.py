"""A part whose libraries are not installed: what to install is said, and nothing is imported before."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLE = str(ROOT / "manifests" / "samples" / "tiny.yaml")

#: Runs the command in a Python that has one library less.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
hidden, *words = sys.argv[1:]
find = PathFinder.find_spec.__func__
PathFinder.find_spec = classmethod(
    lambda cls, name, *more: None if name.split(".")[0] == hidden else find(cls, name, *more)
)
sys.argv = ["gesso", *words]
from gesso.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("hidden", "words", "extras"),
    [
        ("scipy", ("simulate", "--scenario", "constant"), "simulator"),
        ("matplotlib", ("simulate", "--scenario", "constant"), "simulator"),
        ("aiohttp", ("bench", "--rate", "1"), "simulator"),
        ("matplotlib", ("bench", "--rate", "1", "--plot", "a.png"), "simulator"),
        ("PIL", ("demo",), "operator,router,worker,simulator"),
        ("scipy", ("plan", "--service", SAMPLE, "--rate", "1"), "operator,router"),
        ("safetensors", ("plan", "--service", SAMPLE, "--rate", "1"), "operator,router"),
        ("torch", ("up", SAMPLE), "operator,router,worker"),
        ("scipy", ("up", SAMPLE), "operator,router,worker"),
        ("torch", ("profile", "--service", SAMPLE), "worker"),
        ("matplotlib", ("profile", "--service", SAMPLE, "--plot", "a.png"), "simulator"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_the_extra(tmp_path, hidden, words, extras):
    command = [sys.executable, "-c", WITHOUT, hidden, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    said = f"gesso: {hidden} is not installed: pip install 'gesso[{extras}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert list(tmp_path.iterdir()) == []
