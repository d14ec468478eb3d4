"""What a routing decision is made on: one prompt and what it may be given, and the fleet as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gesso.plan import Plan
from gesso.profile import Profile
from gesso_router.routing.estimate import backlog_seconds as backlog_of
from gesso_router.routing.price import Price
from gesso_router.routing.quality import Option


@dataclass(slots=True)
class WorkerView:
    """A worker that may take a request now.

    `profile` is cut to the largest batch allowed; `active` and `queued` are remaining steps, the
    queue in order. Nobody changes a view once it is made; it is not a frozen dataclass, since these set their
    fields slowly, and views are made by the thousand a second.
    """

    name: str
    profile: Profile
    assigned_skipped_steps: int = 0
    active: tuple[int, ...] = ()
    queued: tuple[int, ...] = ()
    #: Whether an image has lately shown that the profile holds.
    proven: bool = True
    #: The model it holds: empty for the service's own.
    model: str = ""
    #: Worker-seconds of accepted work still to do, at the throughput of its best batch.
    backlog_seconds: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.backlog_seconds = backlog_of(self.profile, self.active, self.queued)

    @property
    def outstanding(self) -> int:
        """Requests on it, denoising and queued."""
        return len(self.active) + len(self.queued)


@dataclass(frozen=True)
class FleetView:
    """What the router knows of its fleet at one moment."""

    workers: tuple[WorkerView, ...]
    slo_seconds: float
    plan: Plan | None = None
    #: Requests sent to workers so far: for policies that take turns.
    dispatched: int = 0
    #: Requests a second that the whole fleet takes, and the steps they take on average: who will
    #: follow.
    arrivals_per_second: float = 0.0
    mean_steps: float = 1.0
    #: Seconds to fetch latents from another worker.
    fetch_seconds: float = 0.005
    #: Actual over estimated latency that is exceeded 5 % of the time.
    margin: float = 1.25
    #: Mean predicted quality of recent prompts by (model, K): all that a prompt-agnostic policy knows.
    mean_quality: Mapping[tuple[str, int], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """One prompt: how it may be served, and by when."""

    options: tuple[Option, ...]
    steps: int
    deadline_seconds: float  # from now
    min_quality: float = 0.0
    exclude: frozenset[str] = frozenset()  # workers that failed it
    #: Take the fastest pair if none makes the deadline: for a retry, where late beats lost.
    accept_late: bool = False


@dataclass(frozen=True)
class Choice:
    """What is to be done.

    `reason` is `price` (the best trade), `deadline` (only a larger K makes it), `probe` (to find
    out whether an idle worker is as slow as it says) or `late`.
    """

    worker: str
    option: Option
    start_seconds: float
    finish_seconds: float
    price: Price
    reason: str

    @property
    def skipped_steps(self) -> int:
        """K."""
        return self.option.skipped_steps


@dataclass(frozen=True)
class Refusal:
    """Why not: `no-worker`, `quality-floor` (only a K below the floor would make it), `deadline` or `overload`.

    The last means that it could be served in time, at the price of others who lose less.
    """

    reason: str
    message: str
    retry_after_seconds: float
