"""What is in the images: each part's distributions, and that they are enough for every module of the part."""

import subprocess
import sys
import tomllib
import zipfile

import pytest
from image_kit import PARTS, ROOT, closure, in_context
from packaging.requirements import Requirement

#: Distributions that an image may not hold.
FORBIDDEN = {
    "operator": {
        *("torch", "torchvision", "diffusers", "transformers", "open-clip-torch", "faiss-cpu"),
        *("fastapi", "uvicorn", "accelerate"),
    },
    "router": {
        "diffusers",
        "transformers",
        "faiss-cpu",
        "scipy",
        "accelerate",
        "kopf",
        "kubernetes",
    },
    "worker": {"open-clip-torch", "torchvision", "fastapi", "scipy", "kopf", "kubernetes"},
}

#: How the shipped model was trained: run on a developer's machine alone.
TRAINING = "gesso_worker.models.tiny"

#: Imports all modules of a package where only some distributions are to be seen.
IMPORT_ALL = """
import importlib, importlib.abc, importlib.metadata, pkgutil, re, sys

package, allowed, training = sys.argv[1], set(sys.argv[2].split(",")), sys.argv[3]
ours = {"gesso", "gesso_operator", "gesso_router", "gesso_worker", "gesso_simulator"}
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
hidden = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not {plain(owner) for owner in owners} & allowed
} - ours


class Hiding(importlib.abc.MetaPathFinder):
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        found = getattr(self.finder, "find_distributions", lambda _: ())(context)
        return [d for d in found if plain(d.name) in allowed]


sys.meta_path[:] = map(Hiding, sys.meta_path)
root = importlib.import_module(package)
names = [m.name for m in pkgutil.walk_packages(root.__path__, f"{package}.")]
for name in names:
    if not name.endswith("__main__") and not f"{name}.".startswith(f"{training}."):
        importlib.import_module(name)
print(len(names))
"""


def import_all(package, allowed):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, package, ",".join(allowed), TRAINING],
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.parametrize("part", PARTS)
def test_an_image_is_without_what_its_part_does_not_need(part):
    held = closure(part)
    assert {"pydantic", "grpcio"} <= held
    assert not held & FORBIDDEN[part]


@pytest.mark.parametrize("part", PARTS)
def test_every_module_of_a_part_imports_from_its_image(part):
    done = import_all(f"gesso_{part}", closure(part))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_what_an_image_lacks_is_noticed():
    done = import_all("gesso_router", closure("operator"))
    assert done.returncode != 0
    assert "No module named" in done.stderr


def test_the_gpu_image_changes_faiss_for_its_gpu_build():
    folder = ROOT / "images" / "worker"
    lines = {
        name: [x for x in (folder / name).read_text().splitlines() if not x.startswith("#")]
        for name in ("gpu-overrides.txt", "gpu-requirements.txt")
    }
    (gone,) = map(Requirement, lines["gpu-overrides.txt"])
    assert gone.name == "faiss-cpu"
    assert gone.marker is not None
    assert not gone.marker.evaluate()
    (come,) = map(Requirement, lines["gpu-requirements.txt"])
    assert come.name == "faiss-gpu"
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert str(come.specifier) == f"=={pins['faiss-cpu']}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that an image installs, built from the files that Docker would see."""
    source = tmp_path_factory.mktemp("context")
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    for name in done.stdout.splitlines():
        if in_context(name) and (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    code = (
        "import sys; from setuptools import build_meta; "
        "print(build_meta.build_wheel(sys.argv[1]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, out],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield source, archive


def test_the_wheel_holds_all_code_and_models(wheel):
    source, archive = wheel
    held = set(archive.namelist())
    wanted = {
        str(path.relative_to(source / folder))
        for folder in ("common", "operator", "router", "worker", "simulator")
        for path in (source / folder).rglob("*")
        if path.suffix == ".py" or "builtin" in path.parts
        if path.is_file()
    }
    assert len(wanted) > 100
    assert wanted <= held
    assert not [name for name in held if name.startswith(("tests/", "bench/"))]


def test_the_wheel_has_the_commands(wheel):
    _, archive = wheel
    (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
    text = archive.read(name).decode()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"gesso", "kubectl-gesso"}
    for command, target in scripts.items():
        assert f"{command} = {target}" in text
