"""Clipper's queue in the router: a request waits for a worker's window.

The decisions are routing/clipper.py's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from gesso_router.fleet import Fleet
from gesso_router.routing.clipper import Slot, Waiting, Window, next_turn


class DeadlinePassedError(Exception):
    """Its turn came too late, or never."""


class NoWorkerLeftError(Exception):
    """No worker is left but those that a request does not go to again."""


class ClipperGate:
    """First in, first out; who may not go to a worker again that failed it holds up nobody who may.

    Its length is bounded by the router's admission.
    """

    def __init__(self, fleet: Fleet, max_batch: int, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._largest = max_batch
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._queue: OrderedDict[str, tuple[Waiting, asyncio.Future[str]]] = OrderedDict()
        self._promised: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def window(self, worker: str) -> Window:
        """The AIMD window of a worker."""
        return self._windows.get(worker, Window())

    async def turn(self, waiting: Waiting, give_up_s: float) -> str:
        """Waits for the worker to send to, until `give_up_s`; the caller must call `taken` once it has sent.

        Raises DeadlinePassedError if its turn came after its deadline, or no turn came at all, and
        NoWorkerLeftError where only workers are left that it does not go to again.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue[waiting.request_id] = (waiting, future)
        worker = None
        try:
            self.pump()
            async with asyncio.timeout(max(0.0, give_up_s - self._clock())):
                worker = await future
        except TimeoutError:
            raise DeadlinePassedError from None
        finally:
            self._queue.pop(waiting.request_id, None)
            if future.done() and not future.cancelled() and future.exception() is None:
                self._unpromise(future.result())
                if worker is None:  # cancelled with a turn in hand: it is the next one's
                    self.pump()
        return worker

    def finished(self, worker: str, missed: bool) -> None:
        """An image came from a worker: its window learns, and the queue moves."""
        self._windows[worker] = self.window(worker).after(missed, self._largest)
        self.pump()

    def pump(self) -> None:
        """Gives out turns while windows are open."""
        now, full, gone = self._clock(), False, []
        for waiting, future in self._queue.values():
            # Who was failed by a worker holds up nobody who may go there, and is told when no other is left.
            first_try = not waiting.exclude
            if full and first_try:
                continue
            if future.done() or self._settle(waiting, future, now):
                gone.append(waiting.request_id)
            else:
                full = full or first_try
        for request_id in gone:
            del self._queue[request_id]

    def _settle(self, waiting: Waiting, future: asyncio.Future[str], now_s: float) -> bool:
        """Tells one what becomes of it; False: it waits on."""
        own = self._fleet.holding("", waiting.exclude)
        if waiting.exclude and waiting.exclude.issuperset(own):
            future.set_exception(NoWorkerLeftError())
            return True
        slots = [self._slot(w, waiting.skipped_steps) for w in own]
        turn = next_turn((waiting,), slots, now_s)
        if turn is None:
            return False
        if turn.worker is None:
            future.set_exception(DeadlinePassedError())
        else:
            self._promised[turn.worker] = self._promised.get(turn.worker, 0) + 1
            future.set_result(turn.worker)
        return True

    def _slot(self, worker: str, skipped_steps: int) -> Slot:
        in_flight = self._fleet.in_flight(worker) + self._promised.get(worker, 0)
        batch = min(in_flight + 1, self._largest)
        seconds = self._fleet.image_seconds(worker, skipped_steps, batch)
        return Slot(worker, self.window(worker), in_flight, seconds)

    def _unpromise(self, worker: str) -> None:
        left = self._promised.get(worker, 0) - 1
        if left > 0:
            self._promised[worker] = left
        else:
            self._promised.pop(worker, None)
