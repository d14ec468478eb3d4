"""Which model the worker holds, and its change to another: find, drain, unload, load, warm up, confirm.

Another model is found, and downloaded where it must be, while the one that is held still serves. A model that
cannot be loaded leaves the worker with the one that it had, and an error that Stats tells.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from gesso.profile import Profile
from gesso_worker.engine import ModelLoadError
from gesso_worker.loading import OWN, Loaded
from gesso_worker.logs import line
from gesso_worker.serving import Serving

logger = logging.getLogger(__name__)

#: Finding a model may mean to download it.
FIND_S: Final = 3600.0
LOAD_S: Final = 1800.0
#: Nothing that was accepted may take longer.
DRAIN_S: Final = 300.0
STOP_S: Final = 5.0
CHANGING: Final = "the worker is changing its model"


class Loads(Protocol):
    """Where models come from; `Loader` from folders and the hub."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that there is."""

    async def find(self, name: str, deadline_s: float | None = None) -> None:
        """Makes sure that a model is at hand. Raises ModelLoadError."""

    async def load(self, name: str, deadline_s: float | None = None) -> Loaded:
        """Loads a model and warms it up. Raises ModelLoadError."""


@dataclass(frozen=True)
class Switched:
    """A change of model that went well, in seconds without requests."""

    before: str
    after: str
    drain_seconds: float
    load_seconds: float
    warmup_seconds: float


class ModelHolder:
    """Lives on the worker's event loop. `begin` first; then `want` models."""

    def __init__(
        self,
        loader: Loads,
        make: Callable[[str, Loaded], Serving],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` puts a loaded model to work, short of starting its engine."""
        self._loader = loader
        self._make = make
        self._clock = clock
        self._wanted = OWN
        self._task: asyncio.Task[None] | None = None
        self._broken = ""
        self._done_before = 0
        self._closed = False
        self._profile: Profile | None = None
        #: None while nothing is loaded.
        self.serving: Serving | None = None
        self.held = OWN
        #: What is being loaded; None: nothing.
        self.loading: str | None = None
        #: From the drain on until a model serves again: nothing is accepted.
        self.changing = False
        self.error = ""
        self.last: Switched | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that may be wanted."""
        return self._loader.names

    @property
    def broken(self) -> str:
        """Why the worker cannot go on, or empty."""
        engine = self.serving.engine.broken if self.serving is not None else ""
        return self._broken or engine

    @property
    def profile(self) -> Profile | None:
        """How long the device takes with the model that is held; while another is loaded, what it took."""
        return self.serving.profile if self.serving is not None else self._profile

    @property
    def images_done(self) -> int:
        """Images made so far, by any model."""
        now = self.serving.engine.snapshot().images_done if self.serving is not None else 0
        return self._done_before + now

    def begin(self, loaded: Loaded) -> None:
        """The service's own model is loaded: it serves from now on."""
        self._take(OWN, loaded)
        self._go()

    def want(self, name: str) -> None:
        """Asks for a model of `names`; told again, it changes nothing. The last one asked for counts."""
        if self._closed:
            return
        self._wanted = name
        self._go()

    async def close(self) -> None:
        """No change begins any more; one that is under way is left where it is."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _go(self) -> None:
        idle = self._task is None or self._task.done()
        if idle and self.serving is not None and self._wanted != self.held and not self._broken:
            # At once, so that Stats tells it from the answer to Assign on.
            self.loading, self.error = self._wanted, ""
            self._task = asyncio.create_task(self._run(), name="switch")

    async def _run(self) -> None:
        while self._wanted != self.held and not self._broken:
            target = self._wanted
            self.loading, self.error = target, ""
            try:
                await self._change(target)
            except ModelLoadError as error:
                self.error = str(error)
                logger.error(line("switch_failed", model=target, reason=self.error))
                if self._wanted == target:
                    self._wanted = self.held
            except Exception as error:
                logger.exception("a change of model failed")
                self._broken = f"the change to {target!r} failed: {type(error).__name__}"
            finally:
                self.loading = None

    async def _change(self, target: str) -> None:
        await self._loader.find(target, FIND_S)
        if self._wanted != target:
            return
        began = self._clock()
        self.changing = True
        try:
            await self._unload()
            drained = self._clock() - began
            before = self.held
            try:
                loaded = await self._loader.load(target, LOAD_S)
            except ModelLoadError:
                await self._fall_back(before)
                raise
            self._take(target, loaded)
        finally:
            self.changing = False
        self.last = Switched(before, target, drained, loaded.load_seconds, loaded.warmup_seconds)
        text = line(
            "switched",
            before=before or "own",
            after=target or "own",
            drain_s=drained,
            load_s=loaded.load_seconds,
            warmup_s=loaded.warmup_seconds,
        )
        logger.info(text)

    async def _unload(self) -> None:
        """Finishes what was accepted and lets go of the model: two may not fit into memory."""
        serving = self.serving
        assert serving is not None
        await asyncio.to_thread(serving.engine.drain, DRAIN_S, CHANGING)
        await asyncio.to_thread(serving.engine.stop, STOP_S)
        self._profile = serving.profile
        self._done_before += serving.engine.snapshot().images_done
        self.serving = serving = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def _fall_back(self, before: str) -> None:
        try:
            self._take(before, await self._loader.load(before, LOAD_S))
        except ModelLoadError as error:
            self._broken = f"neither the new model nor the old one can be loaded: {error}"

    def _take(self, name: str, loaded: Loaded) -> None:
        serving = self._make(name, loaded)
        serving.engine.start()
        self.serving, self.held = serving, name
