"""The scenarios by name: what load meets what fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gesso_simulator.scenarios import load
from gesso_simulator.scenarios.load import LoadCurve

WINDOW_MINUTES = 800
SMOOTHING_MINUTES = 15
#: The plateau and floor of the bursty trace in images a minute, and the K = 0 capacity that they met: read
#: off Argus's plots.
BURSTY = (50.0, 390.0, 188.6)
ELASTIC_DAYS = 3
#: Days 9 on of the recording are where the constants of `planning.analogs` were chosen; the bench runs none
#: of them.
ELASTIC_FIRST_DAY = 3
#: Workers at K = 0 that the elastic scenario's peak takes, of the most that there may be.
ELASTIC_PEAK = 12 / 16


@dataclass(frozen=True)
class ElasticSpec:
    """How the fleet of an elastic scenario may grow; see `spec.Elastic`."""

    least: int = 2
    start_seconds: float = 180.0
    least_mean_quality: float = 0.97
    attainment: float = 0.995


#: Load in units of the fleet's capacity at K = 0, from (minutes of a series, day, raw).
LoadMaker = Callable[[np.ndarray[tuple[int], np.dtype[np.float64]], int, bool], LoadCurve]


@dataclass(frozen=True)
class Scenario:
    """One scenario. `load` is in units of the fleet's K = 0 capacity; `recorded`: made from recorded days.

    `slow_class`: half of the workers are of a slower class. `family`: a distilled model may take the place of
    the own one. `loses`: a quarter of the workers is lost at the peak. `notes` say what is assumed.
    """

    name: str
    summary: str
    load: LoadMaker
    recorded: bool = False
    workers: int = 8
    plan_interval_s: float = 30.0
    slow_class: bool = False
    family: bool = False
    loses: bool = False
    elastic: ElasticSpec | None = None
    notes: tuple[str, ...] = ()


def _days(mean: float, peak: float) -> LoadMaker:
    return lambda minutes, day, raw: load.day_window(
        minutes, day, WINDOW_MINUTES, mean, peak, 1 if raw else SMOOTHING_MINUTES
    )


def _fixed(curve: LoadCurve) -> LoadMaker:
    return lambda minutes, day, raw: curve


def _elastic_days() -> LoadMaker:
    return lambda minutes, day, raw: load.day_blocks(
        minutes, day, ELASTIC_DAYS, 1 if raw else 5, ELASTIC_PEAK, ELASTIC_FIRST_DAY
    )


_FAMILY_NOTES = (
    "SDXL-Lightning takes 0.09x SD-XL's time (published for one GPU) at a relative quality of 0.88 for every "
    "prompt (assumed); either model takes 47 s to load (published for SD-XL, assumed for the other)",
)

_ALL = (
    Scenario(
        "twitter",
        "800 minutes of a Twitter day at 0.73x the fleet's K = 0 capacity on average, 2.07x at the peak",
        _days(0.73, 2.07),
        recorded=True,
    ),
    Scenario(
        "twitter-heavy",
        "the same at 1.25x on average, 2.07x at the peak",
        _days(1.25, 2.07),
        recorded=True,
    ),
    Scenario(
        "bursty",
        "three plateaus of two hours at 2.07x, a floor of 0.27x between them, 800 minutes",
        _fixed(load.plateaus(BURSTY[0] / BURSTY[2], BURSTY[1] / BURSTY[2])),
        notes=("heights and length of the plateaus are published, their number is assumed",),
    ),
    Scenario(
        "constant",
        "an hour at 1x (other loads by --load-scale)",
        _fixed(load.pieces((60, 1.0))),
        plan_interval_s=10.0,
    ),
    Scenario(
        "flash-crowd",
        "0.45x, within ten seconds three times as much for ten minutes, and back",
        _fixed(load.flash(0.45, 3.0)),
        plan_interval_s=10.0,
    ),
    Scenario(
        "flash-crowd-family",
        "0.8x, within ten seconds three times as much, which only a second model can serve",
        _fixed(load.flash(0.8, 3.0)),
        plan_interval_s=10.0,
        family=True,
        notes=_FAMILY_NOTES,
    ),
    Scenario(
        "worker-loss",
        "twitter, but a quarter of the workers is lost at the peak, and back 20 minutes later",
        _days(0.73, 2.07),
        recorded=True,
        plan_interval_s=10.0,
        loses=True,
    ),
    Scenario(
        "two-gpu-classes",
        "twitter on a fleet half of which is slower",
        _days(0.73, 2.07),
        recorded=True,
        slow_class=True,
        notes=(
            "the slower class is assumed: 0.55x the speed and 0.28 s more for each image; an SLO such as 5x "
            "counts in latencies of the faster class",
        ),
    ),
    Scenario(
        "model-family",
        "twitter at 1.25x on average and 3x at the peak, with SDXL-Lightning beside SD-XL",
        _days(1.25, 3.0),
        recorded=True,
        family=True,
        notes=_FAMILY_NOTES,
    ),
    Scenario(
        "elastic",
        "three Twitter days on 2 to 16 workers that take 180 s to start; the peak takes 12 at K = 0",
        _elastic_days(),
        recorded=True,
        workers=16,
        elastic=ElasticSpec(),
    ),
)

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}


def scenario(name: str) -> Scenario:
    """A scenario by its name. Raises ValueError, with all names, on another."""
    if name not in SCENARIOS:
        raise ValueError(f"scenario: {name} is not allowed: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
