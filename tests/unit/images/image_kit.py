"""Reads Dockerfiles, the build context, and what an extra installs."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PARTS = ("operator", "router", "worker")
FINAL = {"operator": [""], "router": [""], "worker": ["cpu", "gpu"]}


@dataclass
class Stage:
    """One stage of a Dockerfile: (instruction, argument) in order, of the stages that it stands on as well."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of all of these instructions."""
        return [argument for name, argument in self.steps if name == instruction]


@dataclass(frozen=True)
class Dockerfile:
    """What is written above the first stage, and the stages in order."""

    args: dict[str, str]
    stages: list[Stage]

    def final(self, target: str) -> Stage:
        """The stage of that target with all that it stands on; the last one where there is no name."""
        by_name = {s.name: s for s in self.stages}
        chain = [by_name[target] if target else self.stages[-1]]
        while chain[0].base in by_name:
            chain.insert(0, by_name[chain[0].base])
        return Stage(target, chain[0].base, [step for s in chain for step in s.steps])


def dockerfile(part: str) -> Dockerfile:
    """A part's Dockerfile."""
    return parse((ROOT / "images" / part / "Dockerfile").read_text())


def parse(text: str) -> Dockerfile:
    """A Dockerfile's text."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    args: dict[str, str] = {}
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, argument = line.partition(" ")
        argument = " ".join(argument.split())
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            stages.append(Stage(name, base))
        elif not stages:
            name, _, value = argument.partition("=")
            args[name] = value
        else:
            stages[-1].steps.append((instruction, argument))
    return Dockerfile(args, stages)


def faults(file: Dockerfile, target: str) -> list[str]:
    """What is wrong with an image, in words."""
    stage, found = file.final(target), []
    image = re.sub(r"\$\{(\w+)\}", lambda m: file.args.get(m[1], ""), stage.base)
    if not re.fullmatch(r"[\w./-]+:\d[\w.-]*\d[\w.-]*", image) or image.count(".") < 2:
        found.append(f"base {image!r} is not pinned to a release")
    if stage.base != "${PYTHON_IMAGE}":
        found.append(f"base {stage.base} cannot be replaced by a digest")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", (stage.all("USER") or ["root"])[-1]):
        found.append("its user is not a number other than root's")
    if stage.all("RUN"):
        found.append("it runs a shell in its last stage")
    if any(s.all("ADD") for s in file.stages):
        found.append("it uses ADD")
    if not (stage.all("ENTRYPOINT") or [""])[-1].startswith("["):
        found.append("its entry point goes through a shell")
    labels = " ".join(stage.all("LABEL"))
    for label in ("title", "description", "licenses", "version", "revision"):
        if f"org.opencontainers.image.{label}=" not in labels:
            found.append(f"it has no label {label}")
    for run in (r for s in file.stages for r in s.all("RUN")):
        if (
            "pip install" in run
            and "--constraint constraints.txt" not in run
            and "--no-deps" not in run
        ):
            found.append(f"not held to constraints.txt: {run}")
        if "apt-get install" in run and "rm -rf /var/lib/apt/lists" not in run:
            found.append("it keeps apt's lists")
    return found


def entry_module(part: str) -> str:
    """The module that an image starts."""
    words: list[str] = json.loads(dockerfile(part).final(FINAL[part][0]).all("ENTRYPOINT")[-1])
    python, flag, module = words
    assert (python, flag) == ("python", "-m")
    return module


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a file into the build; the last pattern that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and _fits(path, pattern):
            kept = line.startswith("!")
    return kept


def _fits(path: str, pattern: str) -> bool:
    """As Docker does: a pattern fits a path or a folder above it; ** any number of folders."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
    return any(fnmatch.fnmatch(p, pattern) and p.count("/") == pattern.count("/") for p in above)


def requirements(extra: str) -> list[Requirement]:
    """What pyproject.toml asks for: always, and for the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(line)
        for line in (*project["dependencies"], *project["optional-dependencies"][extra])
    ]


def closure(extra: str) -> set[str]:
    """Names of the distributions that an image of this extra has, by the metadata of those that are installed
    here.
    """
    found: set[str] = set()
    pending = list(_wanted(requirements(extra), {""}))
    while pending:
        name, extras = pending.pop()
        key = f"{name}[{','.join(sorted(extras))}]"
        if key in found:
            continue
        found.add(key)
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            raise AssertionError(f"{name}: is asked for by {extra}, and not installed") from None
        pending += _wanted(map(Requirement, lines), extras | {""})
    return {key.partition("[")[0] for key in found}


def _wanted(lines: Iterable[Requirement], extras: set[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for line in lines:
        if line.marker is None or any(line.marker.evaluate({"extra": e}) for e in extras):
            yield canonicalize_name(line.name), frozenset(line.extras)
