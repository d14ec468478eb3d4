"""What the policies share: who may serve a prompt and at which K, and what is made of the choice.

Where a paper's results can only be had by dropping what cannot be in time (its goodput under
overload is its capacity), a policy here refuses such a request at once. Queues are first in, first
out and their length is known, so that this drops whom a check at the head of the queue would drop,
only sooner.
"""

from __future__ import annotations

from collections.abc import Sequence

from gesso_router.routing.estimate import estimate
from gesso_router.routing.price import Price
from gesso_router.routing.quality import Option
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal, WorkerView

#: Full generation, whether or not anything is known of the prompt.
FULL = Option(0, 1.0)
NO_WORKER = Refusal("no-worker", "no worker is ready", 1.0)
NO_PRICE = Price(0.0, "idle")
_RETRY_AFTER_BOUNDS = (0.2, 60.0)


def candidates(ask: Ask, fleet: FleetView, model: str = "") -> list[WorkerView]:
    """Workers that hold a model, those that failed the request left out."""
    return [w for w in fleet.workers if w.model == model and w.name not in ask.exclude]


def allowed(ask: Ask, model: str = "") -> list[Option]:
    """Options of a model, ascending in K, none below the floor of the request but full generation."""
    return [
        o
        for o in ask.options
        if o.model == model
        and (o.quality >= ask.min_quality or (o.skipped_steps == 0 and not o.model))
    ]


def at_most(options: Sequence[Option], skipped_steps: int) -> Option:
    """The option really used at a wanted K of the service's own model: the largest held level <= K."""
    return max(
        (o for o in options if o.skipped_steps <= skipped_steps),
        key=lambda o: o.skipped_steps,
        default=FULL,
    )


def least_outstanding(workers: Sequence[WorkerView], turn: int) -> WorkerView:
    """The worker with the fewest requests; of equals the next in turn. `workers` is not empty."""
    first = turn % len(workers)
    in_turn = (*workers[first:], *workers[:first])
    return min(in_turn, key=lambda w: w.outstanding)


def placed(worker: WorkerView, option: Option, ask: Ask, fleet: FleetView) -> Choice:
    """An option on a worker, late or not."""
    full = worker.profile.steps if option.model else ask.steps
    steps = max(1, full - option.skipped_steps)
    times = estimate(worker.profile, worker.active, worker.queued, (steps,))
    away = option.match is not None and option.match.worker != worker.name
    fetch = fleet.fetch_seconds if away else 0.0
    return Choice(
        worker.name,
        option,
        times.start_seconds + fetch,
        times.finish_seconds[0] + fetch,
        NO_PRICE,
        "policy",
    )


def in_time(worker: WorkerView, option: Option, ask: Ask, fleet: FleetView) -> Choice | Refusal:
    """An option on a worker, or a refusal where it would miss its deadline.

    An idle worker whose profile is not proven is tried all the same: a profile measured at a bad
    moment must not refuse everyone for ever.
    """
    choice = placed(worker, option, ask, fleet)
    needed = choice.finish_seconds * fleet.margin
    untried = not worker.proven and not worker.outstanding
    if needed <= ask.deadline_seconds or ask.accept_late or untried:
        return choice
    low, high = _RETRY_AFTER_BOUNDS
    return Refusal(
        "deadline",
        f"the finish is expected in {needed:.2f} s, the deadline in {max(0.0, ask.deadline_seconds):.2f} s",
        min(high, max(low, needed - ask.deadline_seconds)),
    )


def pick(weights: Sequence[float], draw: float) -> tuple[int, float]:
    """An index drawn by weights, and a fresh uniform draw made of what is left of the first.

    `draw` is uniform in [0, 1); weights are 0 or more, not all 0. Given the index, the position of
    the draw within its share is uniform and independent of it.
    """
    left = draw * sum(weights)
    last = 0
    for index, weight in enumerate(weights):
        if weight <= 0:
            continue
        if left < weight:
            return index, left / weight
        left -= weight
        last = index
    return last, 0.0  # rounding ate the end of the last share
