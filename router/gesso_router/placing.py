"""Places requests on workers by the service's policy, and learns from what became of them.

The decisions are those of `routing`; what they are made on is gathered here.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence

from gesso.api import DiffusionService
from gesso.plan import Plan
from gesso.rpc.v1 import worker_pb2
from gesso_router import messages
from gesso_router.errors import Ending, RequestError
from gesso_router.fleet import Fleet
from gesso_router.gate import ClipperGate, DeadlinePassedError, NoWorkerLeftError
from gesso_router.models import Models
from gesso_router.routing.choose import ChoicePolicy
from gesso_router.routing.clipper import Waiting, clipper_option
from gesso_router.routing.door import Refusals, is_calm, luckiest, with_reading
from gesso_router.routing.margin import Margins
from gesso_router.routing.mean_quality import MeanQuality
from gesso_router.routing.pace import Pace
from gesso_router.routing.policies import (
    CENTRAL_QUEUE,
    IN_FULL,
    PRICE_POLICIES,
    ROUTES,
    Route,
    price_route,
)
from gesso_router.routing.quality import (
    Match,
    Option,
    QualityPredictor,
    Vector,
    serving_options,
)
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal
from gesso_router.run import Placement, Run, refused, unserved
from gesso_router.settings import RouterSettings


class Placer:
    """One service's policy at work; `plan` is the plan in force, `predictor` what is known of quality."""

    def __init__(
        self,
        service: DiffusionService,
        predictor: QualityPredictor,
        fleet: Fleet,
        settings: RouterSettings,
        clock: Callable[[], float],
        price_policy: ChoicePolicy | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`draw` gives numbers uniform in [0, 1).

        `price_policy` replaces the constants of a policy that chooses by price.
        """
        self.policy = service.spec.scheduling.policy
        self.price_policy = price_policy or PRICE_POLICIES.get(self.policy, ChoicePolicy())
        self.plan: Plan | None = None
        self.predictor = predictor
        self.margins = Margins()
        self.refusals = Refusals()
        self.pace = Pace()
        self.fetch_seconds = 0.005
        self.gate = ClipperGate(fleet, service.spec.workers.max_batch, clock)
        self.models = Models.of(service)
        #: Deadline of requests that name none.
        self.slo_seconds = service.spec.slo.latency_seconds
        #: Requests whose prompts are being read.
        self.reading = 0
        self._deepest = max(service.ladder)
        self._fleet = fleet
        self.settings = settings
        self._clock = clock
        self._draw = draw
        self._dispatched = 0
        self._mean_quality = MeanQuality()
        self._route: Route | None = None
        if self.policy in PRICE_POLICIES:
            self._route = price_route(self.price_policy)
        elif self.policy not in CENTRAL_QUEUE:
            self._route = ROUTES[self.policy]

    @property
    def needs_prompt(self) -> bool:
        """Whether it matters what the prompt is like."""
        return self.policy not in IN_FULL

    def view(self, tried: frozenset[str] = frozenset()) -> FleetView:
        """The fleet as choices are made on it, now, for a request that was `tried` on some workers."""
        now = self._clock()
        return FleetView(
            workers=self._fleet.views(now, tried),
            slo_seconds=self.slo_seconds,
            plan=self.plan,
            dispatched=self._dispatched,
            arrivals_per_second=self.pace.per_second(now),
            mean_steps=self.pace.mean_steps,
            fetch_seconds=self.fetch_seconds,
            margin=self.margins.factor(most_refused=self.refusals.most),
            mean_quality=self._mean_quality.means,
        )

    def options(self, matches: Sequence[Match], prompt: Vector | None) -> tuple[Option, ...]:
        """Every way to serve a prompt: the levels that its matches hold, then the other models."""
        return (*serving_options(self.predictor, matches, prompt), *self.models.others)

    def seen(self, run: Run) -> None:
        """It is known how a new prompt may be served."""
        self._mean_quality = self._mean_quality.seen(run.options)

    def stop_at_the_door(self, run: Run) -> None:
        """Raises RequestError where no prompt could be served in time, whatever it is like.

        Under policies that choose by price: the others refuse nobody, or do not look at prompts.
        """
        if self._route is None or self.policy not in PRICE_POLICIES:
            return
        if run.job.skipped_steps is not None:
            return
        now = self._clock()
        left = run.ticket.deadline_s - now
        steps = self.models.steps[""]
        view, shortest = self.view(), max(1, steps - self._deepest)
        if is_calm(view, left, self.reading, shortest):
            return
        view = with_reading(view, self.reading, shortest)
        if is_calm(view, left):
            return
        ask = Ask(luckiest(run.options, self._deepest), steps, left)
        decision = self._route(ask, view, self._draw())
        if isinstance(decision, Refusal):
            self.refusals = self.refusals.seen(True)
            raise refused(decision)

    async def place(self, run: Run) -> Placement:
        """Books the next attempt on a worker. Raises RequestError.

        Nothing is awaited between decision and booking, so that the next decision sees it.
        """
        if run.failed_on:  # latents on a worker that failed are out of reach
            reachable = [m for m in run.matches if m.worker not in run.failed_on]
            run.options = self.options(reachable, run.embedding)
        if self._route is None:
            option = clipper_option(
                run.allowed, fastest=self.policy == "ClipperHT", min_quality=run.min_quality
            )
            return self._book(run, await self._turn(run, option), option, None)
        now = self._clock()
        ask = Ask(
            options=run.allowed,
            steps=self.models.steps[""],
            deadline_seconds=run.ticket.deadline_s - now,
            min_quality=run.min_quality,
            exclude=run.tried,
            accept_late=bool(run.tried),
        )
        decision = self._route(ask, self.view(run.tried), self._draw())
        if not run.tried:
            self.refusals = self.refusals.seen(isinstance(decision, Refusal))
        if isinstance(decision, Refusal):
            raise unserved(run) if run.failed_on else refused(decision)
        self.pace = self.pace.arrived(now, self.models.steps_of(decision.option))
        return self._book(run, decision.worker, decision.option, decision)

    def ended(self, placement: Placement, now_s: float) -> None:
        """An attempt is over, whatever became of it."""
        self._fleet.done(placement.worker, placement.flight.request_id, now_s)
        if self._route is None:
            self.gate.pump()

    def learn(
        self, run: Run, placement: Placement, made: worker_pb2.WorkerImage, now_s: float
    ) -> None:
        """What an image teaches about the next: how far estimates are off, what a fetch and a window bear."""
        flight, option, choice = placement.flight, placement.option, placement.choice
        self._fleet.finished(placement.worker, flight)
        if choice is None:
            # Clipper's AIMD holds the batch's own latency to the objective, not the wait before it.
            objective_s = run.ticket.deadline_s - run.ticket.arrived_s
            self.gate.finished(placement.worker, missed=now_s - flight.sent_s > objective_s)
            return
        if made.skipped_steps == option.skipped_steps:
            self.margins = self.margins.observe(
                choice.finish_seconds, now_s - flight.sent_s, run.ticket.deadline_s - flight.sent_s
            )
        if option.match is not None and option.match.worker != placement.worker:
            self.fetch_seconds += 0.1 * (made.fetch_seconds - self.fetch_seconds)

    def give_up_s(self, run: Run) -> float:
        """When a request is given up, on the router's clock."""
        ticket = run.ticket
        allowed_s = ticket.deadline_s - ticket.arrived_s
        return ticket.arrived_s + self.settings.late_factor * allowed_s

    def _book(self, run: Run, worker: str, option: Option, choice: Choice | None) -> Placement:
        wire_id = f"{run.job.request_id}.{secrets.token_hex(4)}"
        flight = self._fleet.sent(worker, wire_id, self.models.steps_of(option), self._clock())
        self._dispatched += 1
        return Placement(worker, option, choice, flight)

    async def _turn(self, run: Run, option: Option) -> str:
        """Waits in Clipper's queue for the worker to send to."""
        if run.tried and not set(self._fleet.holding("", run.tried)) - run.tried:
            raise unserved(run)
        waiting = Waiting(
            secrets.token_hex(8), run.ticket.deadline_s, run.tried, option.skipped_steps
        )
        await run.emit(messages.queued(run.job.request_id, 0.0))
        try:
            return await self.gate.turn(waiting, self.give_up_s(run))
        except NoWorkerLeftError:
            raise unserved(run) from None
        except DeadlinePassedError:
            raise RequestError(
                Ending.DEADLINE, "deadline", "dropped: its deadline passed before its turn came"
            ) from None
