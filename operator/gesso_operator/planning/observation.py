"""What the planner is shown: the router's counters and the workers, at one instant."""

from __future__ import annotations

from dataclasses import dataclass

from gesso.profile import Profile


@dataclass(frozen=True)
class ClassCount:
    """A prompt class as the router counts it.

    `arrivals` is a counter since the router started; `quality[i]` is the mean predicted relative quality
    at the i-th level of the ladder. A quality of 0, or NaN, says that the level cannot be served.
    """

    name: str
    arrivals: int
    quality: tuple[float, ...]


@dataclass(frozen=True)
class RouterReport:
    """Counters since the router started (see `ReportResponse` in router.proto); times in seconds.

    `optimal_levels` counts arrivals by optimal K: the K up to which NIRVANA's thresholds let a prompt skip.
    """

    at_s: float
    uptime_s: float
    offered: int
    classes: tuple[ClassCount, ...] = ()
    backlog_s: float = 0.0
    plan_revision: int = 0
    optimal_levels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class WorkerView:
    """One worker as its `Stats` show it.

    `skipped_steps` is the level it was last assigned, None when it never was (`assigned_revision` 0: it
    has just started). `profile` is None until it has measured itself; its `device` names the device class.
    `model` is the model it holds or is loading: empty for the service's own, else another variant's name.
    `starting` says that it is on its way up or loading a model: not ready, but expected.
    """

    name: str
    ready: bool
    skipped_steps: int | None = None
    assigned_revision: int = 0
    profile: Profile | None = None
    model: str = ""
    starting: bool = False


@dataclass(frozen=True)
class Observation:
    """Everything seen at `now_s` (unix seconds, or a virtual clock's).

    `report` is None when the router did not answer, which is not the same as no load.
    """

    now_s: float
    report: RouterReport | None
    workers: tuple[WorkerView, ...]
