"""Which model the worker holds, and its change to another: find, drain, unload, load, warm up, confirm.

Another model is found, and downloaded where it must be, while the one that is held still serves. A model that
cannot be loaded leaves the worker with the one that it had, and an error that Stats tells.

What fits into memory together is not unloaded. A change to a model that is in memory still is quick: it takes
requests at once, while those of the one before are finished beside it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch

from gesso.profile import Profile
from gesso_worker.defaults import LONGEST_S
from gesso_worker.engine import ModelLoadError
from gesso_worker.loading import OWN, Loaded
from gesso_worker.residency import Resident, to_let_go
from gesso_worker.serving import Serving

logger = logging.getLogger(__name__)

#: Finding a model may mean to download it.
FIND_S: Final = 3600.0
LOAD_S: Final = 1800.0
#: Nothing that was accepted may take longer.
DRAIN_S: Final = LONGEST_S
STOP_S: Final = 5.0
_HUNG_STEPS: Final = 20
CHANGING: Final = "the worker is changing its model"


class Loads(Protocol):
    """Where models come from; `Loader` from folders and the hub."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that there is."""

    async def find(self, name: str, deadline_s: float | None = None) -> int:
        """Makes sure that a model is at hand; the bytes that it will take. Raises ModelLoadError."""

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
    #: It was in memory still.
    kept: bool = False


class ModelHolder:
    """Lives on the worker's event loop. `begin` first; then `want` models."""

    def __init__(
        self,
        loader: Loads,
        make: Callable[[str, Loaded], Serving],
        clock: Callable[[], float] = time.monotonic,
        bound_bytes: int = 0,
    ) -> None:
        """`make` puts a loaded model to work, short of starting its engine; `bound_bytes` is what the weights
        of several models may take together.
        """
        self._loader = loader
        self._make = make
        self._clock = clock
        self.bound_bytes = bound_bytes
        #: In memory, the one that is held last; in the order of their last use.
        self._loaded: dict[str, Loaded] = {}
        #: Models that finish what they had accepted, while another serves already.
        self._leaving: dict[str, tuple[Serving, asyncio.Task[None]]] = {}
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

    def hung_seconds(self, least_s: float) -> float:
        """How long the device has not come round, where that is longer than `least_s` and than twenty measured
        steps; else 0.
        """
        if self.serving is None or self.changing:  # an engine that has ended is silent, too
            return 0.0
        silent = self.serving.engine.silent_seconds()
        patience = max(least_s, _HUNG_STEPS * max(self.serving.profile.step_seconds))
        return silent if silent > patience else 0.0

    @property
    def profile(self) -> Profile | None:
        """How long the device takes with the model that is held; while another is loaded, what it took."""
        return self.serving.profile if self.serving is not None else self._profile

    @property
    def kept(self) -> tuple[str, ...]:
        """Models in memory beside the one that is held: a change to them is quick."""
        return tuple(name for name in self._loaded if self.serving is None or name != self.held)

    @property
    def model_bytes(self) -> int:
        """What the weights of all models in memory take."""
        return sum(loaded.size for loaded in self._loaded.values())

    @property
    def at_work(self) -> tuple[Serving, ...]:
        """What has requests: the model that is held, and those that finish theirs."""
        leaving = tuple(serving for serving, _ in self._leaving.values())
        return leaving if self.serving is None else (self.serving, *leaving)

    @property
    def images_done(self) -> int:
        """Images made so far, by any model."""
        now = sum(serving.engine.snapshot().images_done for serving in self.at_work)
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
                logger.error("switch_failed", extra={"model": target, "reason": self.error})
                if self._wanted == target:
                    self._wanted = self.held
            except Exception as error:
                logger.exception("a change of model failed")
                self._broken = f"the change to {target!r} failed: {type(error).__name__}"
            finally:
                self.loading = None

    async def _change(self, target: str) -> None:
        if target in self._loaded:
            await self._take_up(target)
            return
        needed = await self._loader.find(target, FIND_S)
        if self._wanted != target:
            return
        began = self._clock()
        self.changing = True
        try:
            await self._drain()
            drained = self._clock() - began
            before = self.held
            residents = [Resident(name, loaded.size) for name, loaded in self._loaded.items()]
            await self._let_go(to_let_go(residents, needed, self.bound_bytes))
            try:
                loaded = await self._load(target)
            except ModelLoadError:
                await self._fall_back(before)
                raise
            self._take(target, loaded)
        finally:
            self.changing = False
        self._confirm(Switched(before, target, drained, loaded.load_seconds, loaded.warmup_seconds))

    async def _take_up(self, target: str) -> None:
        """Changes to a model that is in memory, which takes requests at once."""
        if target in self._leaving:
            # One engine at a time may use a model.
            await asyncio.wait((self._leaving[target][1],))
        if self._wanted != target:
            return
        began, before, leaving = self._clock(), self.held, self.serving
        assert leaving is not None
        self._note_profile(before, leaving)
        self._take(target, self._loaded[target])
        task = asyncio.create_task(self._leave(before, leaving), name="leave")
        self._leaving[before] = (leaving, task)
        seconds = self._clock() - began
        self._confirm(Switched(before, target, 0.0, seconds, 0.0, kept=True))

    async def _leave(self, name: str, serving: Serving) -> None:
        """Finishes what a model had accepted."""
        try:
            await self._end(serving)
        finally:
            del self._leaving[name]

    async def _end(self, serving: Serving) -> None:
        await asyncio.to_thread(serving.engine.drain, DRAIN_S, CHANGING)
        await asyncio.to_thread(serving.engine.stop, STOP_S)
        self._done_before += serving.engine.snapshot().images_done

    async def _drain(self) -> None:
        """Finishes what was accepted, by any model: nothing works while another is loaded and measured."""
        serving = self.serving
        assert serving is not None
        if self._leaving:
            await asyncio.wait([task for _, task in self._leaving.values()])
        await self._end(serving)
        self._note_profile(self.held, serving)
        self._profile = serving.profile
        self.serving = None

    def _note_profile(self, name: str, serving: Serving) -> None:
        """A model that is taken up again is as fast as it was last."""
        loaded = self._loaded[name]
        warm = replace(loaded.warm, profile=serving.profile)
        self._loaded[name] = replace(loaded, warm=warm)

    async def _let_go(self, names: tuple[str, ...]) -> None:
        """Frees the memory of models."""
        for name in names:
            del self._loaded[name]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def _load(self, name: str) -> Loaded:
        """Loads a model; where there is no room for it beside others, instead of them."""
        try:
            return await self._loader.load(name, LOAD_S)
        except ModelLoadError as error:
            if not self._loaded or not _out_of_memory(error):
                raise
            told = {"model": name or "own", "beside": ",".join(self._loaded)}
            logger.warning("no_room", extra=told)
        await self._let_go(tuple(self._loaded))
        return await self._loader.load(name, LOAD_S)

    def _confirm(self, last: Switched) -> None:
        self.last = last
        told = {
            "before": last.before or "own",
            "after": last.after or "own",
            "kept": last.kept,
            "drain_s": last.drain_seconds,
            "load_s": last.load_seconds,
            "warmup_s": last.warmup_seconds,
        }
        logger.info("switched", extra=told)

    async def _fall_back(self, before: str) -> None:
        try:
            loaded = self._loaded.get(before) or await self._loader.load(before, LOAD_S)
            self._take(before, loaded)
        except ModelLoadError as error:
            self._broken = f"neither the new model nor the old one can be loaded: {error}"

    def _take(self, name: str, loaded: Loaded) -> None:
        serving = self._make(name, loaded)
        serving.engine.start()
        # Last in the order of use.
        self._loaded.pop(name, None)
        self._loaded[name] = loaded
        self.serving, self.held = serving, name


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether memory that ran out is at the root of it."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
