"""Which model a worker holds: changes one after the other, failures that leave what was there."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gesso_worker.engine import ModelLoadError, WarmUp
from gesso_worker.engine.preview import LatentProjection
from gesso_worker.holder import CHANGING, ModelHolder, Switched
from gesso_worker.loading import Loaded

SIZE = 100


class Engine:
    """Says what is done with it."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name, self.broken, self.images = log, name, "", 3
        #: Whether the jobs that it has are done.
        self.done = threading.Event()
        self.done.set()

    def start(self) -> None:
        self.log.append(f"start {self.name}")

    def drain(self, timeout_s: float, why: str) -> bool:
        assert why == CHANGING
        self.log.append(f"drain {self.name}")
        assert self.done.wait(5)
        return True

    def stop(self, timeout_s: float) -> None:
        self.log.append(f"stop {self.name}")

    def snapshot(self) -> Any:
        return SimpleNamespace(images_done=self.images)


@dataclass
class Loader:
    """Loads what the test lets it, when the test lets it."""

    names: tuple[str, ...] = ("", "fast", "other")
    log: list[str] = field(default_factory=list)
    #: With which each model was put to work.
    profiles: list[object] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    #: Loads of a model that run out of memory.
    too_large: list[str] = field(default_factory=list)
    found: asyncio.Event = field(default_factory=asyncio.Event)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.found.set()
        self.loaded.set()

    async def find(self, name: str, deadline_s: float | None = None) -> int:
        assert deadline_s is not None
        self.log.append(f"find {name}")
        await self.found.wait()
        if name in self.missing:
            raise ModelLoadError(f"{name} is not there")
        return SIZE

    async def load(self, name: str, deadline_s: float | None = None) -> Loaded:
        self.log.append(f"load {name}")
        await self.loaded.wait()
        if name in self.torn:
            raise ModelLoadError(f"{name} is torn")
        if name in self.too_large:
            self.too_large.remove(name)
            raise ModelLoadError(f"{name} does not fit") from torch.OutOfMemoryError("no room")
        return a_model()


def a_model() -> Loaded:
    model: Any = SimpleNamespace()
    profile: Any = "as measured"
    return Loaded(model, WarmUp(profile, b"", LatentProjection()), 5.0, 2.0, SIZE)


def holder(loader: Loader, bound_bytes: int = 0) -> ModelHolder:
    def make(name: str, loaded: Loaded) -> Any:
        loader.profiles.append(loaded.warm.profile)
        return SimpleNamespace(model=name, engine=Engine(loader.log, name), profile=f"of {name}")

    made = ModelHolder(loader, make, clock=lambda: 0.0, bound_bytes=bound_bytes)
    made.begin(a_model())
    return made


async def settled(made: ModelHolder) -> None:
    """Until no change is under way."""
    async with asyncio.timeout(5):
        while made.loading is not None or made.changing:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def left(made: ModelHolder) -> None:
    """Until no model finishes what it had accepted."""
    async with asyncio.timeout(5):
        while len(made.at_work) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def loading(loader: Loader) -> None:
    """Until the new model is being loaded."""
    async with asyncio.timeout(5):
        while "load fast" not in loader.log:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_change_drains_unloads_loads_and_confirms() -> None:
    loader = Loader()
    made = holder(loader)
    made.want("fast")
    assert (made.held, made.loading, made.changing) == ("", "fast", False)
    await settled(made)
    assert loader.log == [
        *("start ", "find fast", "drain ", "stop ", "load fast", "start fast"),
    ]
    assert (made.held, made.error, made.images_done) == ("fast", "", 6)
    assert made.last == Switched("", "fast", 0.0, 5.0, 2.0)


async def test_what_is_held_is_not_loaded_again() -> None:
    loader = Loader()
    made = holder(loader)
    made.want("")
    await settled(made)
    made.want("fast")
    made.want("fast")
    await settled(made)
    made.want("fast")
    await settled(made)
    assert loader.log.count("load fast") == 1


async def test_it_serves_while_a_model_is_found_and_may_be_called_back() -> None:
    loader = Loader()
    loader.found.clear()
    made = holder(loader)
    made.want("fast")
    await asyncio.sleep(0)
    assert (made.changing, made.serving is not None) == (False, True)
    made.want("")
    loader.found.set()
    await settled(made)
    assert (made.held, made.last) == ("", None)
    assert "drain " not in loader.log


async def test_the_last_model_asked_for_counts() -> None:
    loader = Loader()
    loader.loaded.clear()
    made = holder(loader)
    made.want("fast")
    await loading(loader)
    assert (made.changing, made.serving, made.profile) == (True, None, "of ")
    made.want("other")
    loader.loaded.set()
    await settled(made)
    assert made.held == "other"
    assert made.last == Switched("fast", "other", 0.0, 5.0, 2.0)


async def test_a_missing_model_does_not_disturb_the_one_that_serves() -> None:
    loader = Loader(missing={"fast"})
    made = holder(loader)
    made.want("fast")
    await settled(made)
    assert (made.held, made.error, made.broken) == ("", "fast is not there", "")
    assert "drain " not in loader.log
    # Asked again it tries again; another choice clears the error.
    made.want("fast")
    await settled(made)
    assert loader.log.count("find fast") == 2
    made.want("other")
    await settled(made)
    assert (made.held, made.error) == ("other", "")


async def test_a_torn_model_brings_the_one_before_back() -> None:
    loader = Loader(torn={"fast"})
    made = holder(loader)
    made.want("fast")
    await settled(made)
    assert (made.held, made.error, made.broken, made.last) == ("", "fast is torn", "", None)
    assert loader.log[-3:] == ["load fast", "load ", "start "]
    assert made.serving is not None


async def test_without_any_model_the_worker_is_broken() -> None:
    loader = Loader(torn={"fast", ""})
    made = holder(loader)
    made.want("fast")
    await settled(made)
    assert "neither the new model nor the old one can be loaded" in made.broken
    made.want("other")
    await settled(made)
    assert "find other" not in loader.log


async def test_on_the_way_out_no_change_begins() -> None:
    loader = Loader()
    made = holder(loader)
    await made.close()
    made.want("fast")
    assert (made.loading, loader.log) == (None, ["start "])


async def test_a_close_during_a_change_does_not_wait_for_it() -> None:
    loader = Loader()
    loader.loaded.clear()
    made = holder(loader)
    made.want("fast")
    await loading(loader)
    await asyncio.wait_for(made.close(), 5)
    assert (made.serving, made.loading, made.changing) == (None, None, False)


async def test_the_model_before_is_let_go_before_another_is_loaded() -> None:
    loader = Loader()
    loader.loaded.clear()
    made = holder(loader)
    assert made.serving is not None
    before = weakref.ref(made.serving.engine)
    made.want("fast")
    await loading(loader)
    gc.collect()
    assert before() is None
    await made.close()


@pytest.mark.parametrize("why", ["the device hangs", ""])
async def test_a_broken_engine_is_told(why: str) -> None:
    made = holder(Loader())
    engine: Any = made.serving.engine if made.serving is not None else None
    engine.broken = why
    assert made.broken == why


async def test_what_fits_stays_and_is_taken_up_again_at_once() -> None:
    loader = Loader()
    made = holder(loader, 2 * SIZE)
    made.want("fast")
    await settled(made)
    assert (made.held, made.kept, made.model_bytes) == ("fast", ("",), 2 * SIZE)
    made.want("")
    await settled(made)
    await left(made)
    assert (made.held, made.kept) == ("", ("fast",))
    assert made.last == Switched("fast", "", 0.0, 0.0, 0.0, kept=True)
    assert [entry for entry in loader.log if "load" in entry] == ["load fast"]
    # As fast as it was when it was last at work, not as at its warm-up.
    assert loader.profiles == ["as measured", "as measured", "of "]
    assert made.images_done == 9


async def test_requests_are_taken_while_those_of_the_model_before_are_finished() -> None:
    loader = Loader()
    made = holder(loader, 2 * SIZE)
    made.want("fast")
    await settled(made)
    before: Any = made.serving.engine if made.serving is not None else None
    before.done.clear()
    made.want("")
    await settled(made)
    assert (made.held, made.changing, len(made.at_work)) == ("", False, 2)
    assert made.at_work[1].engine is before
    # The way back waits until the model is free again; the other one serves meanwhile.
    made.want("fast")
    await asyncio.sleep(0.01)
    assert (made.held, made.loading, made.changing) == ("", "fast", False)
    before.done.set()
    await settled(made)
    await left(made)
    assert (made.held, made.images_done) == ("fast", 12)


async def test_the_longest_unused_goes_where_not_all_fit() -> None:
    made = holder(Loader(), 2 * SIZE)
    for name in ("fast", "", "other"):
        made.want(name)
        await settled(made)
        await left(made)
    assert (made.held, made.kept) == ("other", ("",))


async def test_memory_that_runs_out_is_freed_of_others_and_the_load_tried_again() -> None:
    loader = Loader(too_large=["fast"])
    made = holder(loader, 10 * SIZE)
    made.want("fast")
    await settled(made)
    assert (made.held, made.kept, made.error) == ("fast", (), "")
    assert loader.log.count("load fast") == 2


async def test_a_torn_model_leaves_the_kept_one_without_a_load() -> None:
    loader = Loader(torn={"fast"})
    made = holder(loader, 2 * SIZE)
    made.want("fast")
    await settled(made)
    assert (made.held, made.error) == ("", "fast is torn")
    assert "load " not in loader.log


async def test_a_close_leaves_requests_of_the_model_before_to_be_finished() -> None:
    loader = Loader()
    made = holder(loader, 2 * SIZE)
    made.want("fast")
    await settled(made)
    before: Any = made.serving.engine if made.serving is not None else None
    before.done.clear()
    made.want("")
    await settled(made)
    await made.close()
    assert [serving.engine for serving in made.at_work][1:] == [before]
    before.done.set()
    await left(made)
