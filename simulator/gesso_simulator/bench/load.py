"""What is asked and when: arrivals from a rate or a trace, prompts from a file or the tiny model's scenes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gesso.csv_input import InputError
from gesso_simulator.inputs.prompts import read_prompts
from gesso_simulator.inputs.trace import read_trace
from gesso_simulator.scenarios.arrivals import arrival_times, scaled
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import SessionMix
from gesso_simulator.workloads.sessions import prompts as sessions

#: What one process sends, and keeps the outcomes of.
MOST_REQUESTS = 1_000_000


@dataclass(frozen=True)
class Asked:
    """One request: when it is due, in seconds from the beginning, and what it asks for."""

    index: int
    at_s: float
    prompt: str
    seed: int


@dataclass(frozen=True)
class Load:
    """All requests of a run, and its length in seconds."""

    requests: tuple[Asked, ...]
    seconds: float


def make_load(
    rate: float | None,
    seconds: float | None,
    trace: Path | None,
    scale: float,
    prompts: Path | None,
    seed: int,
) -> Load:
    """The load of these options. Raises InputError on a bad file, ValueError on options that clash."""
    rng = np.random.default_rng(seed)
    if trace is not None:
        if rate is not None:
            raise ValueError("--rate: is not allowed with --trace: --scale multiplies the trace")
        steps = scaled(read_trace(trace), scale, seed)
        arrivals = [float(t) for t in arrival_times(steps, seed)]
        whole = steps.duration_s
        if seconds is not None:
            whole = min(seconds, whole)
            arrivals = [t for t in arrivals if t < whole]
    else:
        if rate is None:
            raise ValueError("--rate: missing: a rate in requests a second, or --trace")
        whole = 60.0 if seconds is None else seconds
        if rate * scale * whole > MOST_REQUESTS:
            raise ValueError(
                f"--rate: {rate:g} is not allowed: at most {MOST_REQUESTS} requests in all"
            )
        arrivals = poisson_arrivals(RateShape(((0.0, rate * scale), (whole, rate * scale))), rng)
    if not arrivals:
        raise ValueError(f"no request is due within {whole:g} s: a higher rate or a longer run")
    if len(arrivals) > MOST_REQUESTS:
        raise ValueError(f"--trace: {len(arrivals)} requests is not allowed: {MOST_REQUESTS}")
    texts = _texts(prompts, rng)
    return Load(
        tuple(Asked(i, at, next(texts), int(rng.integers(2**31))) for i, at in enumerate(arrivals)),
        whole,
    )


def _texts(path: Path | None, rng: np.random.Generator) -> Iterator[str]:
    """Prompts without end: sessions of the tiny model's scenes, or those of a file in turn."""
    if path is None:
        return (text for text, _ in sessions(SessionMix(), rng))
    if path.suffix != ".txt":
        return itertools.cycle(read_prompts(path).prompts)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read: {error}") from None
    texts = [line for line in lines if line]
    if not texts:
        raise InputError(path, "lines: 0 is not allowed: one prompt a line, one at least")
    return itertools.cycle(texts)
