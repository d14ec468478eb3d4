"""The console's page in a real Chromium, over routers in this process whose workers answer from a script."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "router"))

from chromium import browsers, chart, complaints, needs_chromium, text, until
from router_kit import Clock, ScriptedPool, router, service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from gesso.rpc.v1 import worker_pb2
from gesso_router.console.pages import pages
from gesso_router.console.watch import Watch
from gesso_router.http_api import create_app

pytestmark = [needs_chromium, pytest.mark.timeout(300)]

SEED = 5839284729384729384


class Painter(ScriptedPool):
    """Makes real images, `side` pixels wide, in so many seconds."""

    side, seconds = 8, 0.0

    async def generate(self, *asked: Any) -> worker_pb2.WorkerImage:
        await asyncio.sleep(self.seconds)
        made = await super().generate(*asked)
        data = io.BytesIO()
        Image.new("RGB", (self.side, self.side), "red").save(data, "PNG")
        made.data = data.getvalue()
        return made


class Process:
    """A router as one process would run it."""

    def __init__(self, routers: int = 1, side: int = 8) -> None:
        self.pool = Painter()
        self.pool.side = side
        spec = service()
        spec = spec.model_copy(
            update={
                "spec": spec.spec.model_copy(
                    update={"router": spec.spec.router.model_copy(update={"replicas": routers})}
                )
            }
        )
        self.watch = Watch(router(self.pool, Clock(), spec), "Full", clock=Clock())
        self.app = create_app(self.watch.router, pages(self.watch))
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        self.watch.read()
        await self.app(scope, receive, send)


class Address:
    """Where the page is served: each request goes to the next of the routers behind it."""

    def __init__(self, *routers: Process) -> None:
        self.behind(*routers)

    def behind(self, *routers: Process) -> None:
        self.turns = cycle(routers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await next(self.turns)(scope, receive, send)


@pytest.fixture
def address() -> Address:
    return Address(Process())


@pytest.fixture
def browser(address: Address) -> Iterator[Callable[..., Any]]:
    server = uvicorn.Server(uvicorn.Config(address, port=0, lifespan="off", log_config=None))
    serving = threading.Thread(target=server.run)
    serving.start()
    while not server.started:
        time.sleep(0.01)
    (port,) = {s.getsockname()[1] for s in server.servers[0].sockets}
    with browsers(f"http://127.0.0.1:{port}") as start:
        yield start
    server.should_exit = True
    serving.join(timeout=30)
    assert not serving.is_alive()


def make(driver: Any, prompt: str) -> None:
    """An image, asked for by keyboard."""
    box = driver.find_element(By.ID, "prompt")
    box.clear()
    box.send_keys(prompt + Keys.ENTER)
    until(driver, lambda d: "made in" in text(d, "caption"))


def wall(driver: Any) -> list[tuple[str, int]]:
    """Prompts of the gallery, each with the width of its image, 0 while that is not there."""
    return [
        (prompt, width)
        for prompt, width in driver.execute_script(
            "return [...document.querySelectorAll('#wall > li')].map((i) =>"
            " [i.querySelector('.prompt').textContent, i.querySelector('.canvas img').naturalWidth])"
        )
    ]


def focus(driver: Any) -> str:
    return str(driver.execute_script("return document.activeElement.id"))


def rests(driver: Any) -> bool:
    return driver.find_element(By.ID, "go").get_attribute("aria-disabled") == "false"


def test_after_a_restart_the_gallery_shows_the_new_routers_images(
    browser: Callable[..., Any], address: Address
) -> None:
    driver = browser()
    make(driver, "a red star")
    until(driver, lambda d: wall(d) == [("a red star", 8)])
    again = Process(side=16)
    address.behind(again)
    # As many readings as before, as after a machine has slept: numbers alone do not tell.
    for _ in range(50):
        again.watch.read()
    make(driver, "a blue ring")
    until(driver, lambda d: wall(d) == [("a blue ring", 16)])
    assert complaints(driver) == []


def test_where_two_routers_answer_in_turn_the_page_stays_with_one(
    browser: Callable[..., Any], address: Address
) -> None:
    first, second = Process(routers=2), Process(routers=2, side=16)
    address.behind(first, second)
    driver = browser()
    assert text(driver, "span") == "last 5 minutes, of one of 2 routers"
    for i in range(4):
        make(driver, f"a star {i}")
    hung = [p.watch.gallery.hung for p in (first, second) if p.watch.gallery is not None]
    assert sum(hung) == 4
    until(driver, lambda d: len(wall(d)) in hung)
    seen = set()
    until(driver, lambda d: all(width for _, width in wall(d)))
    began = time.monotonic()
    while time.monotonic() - began < 4:
        seen.add(tuple(wall(driver)))
        time.sleep(0.2)
    assert len(seen) == 1, "nothing flickers"
    assert first.asked.count("/console/state") > 1 < second.asked.count("/console/state")


def test_a_seed_that_was_shown_can_be_asked_for(
    browser: Callable[..., Any], address: Address
) -> None:
    driver = browser()
    driver.find_element(By.TAG_NAME, "summary").click()
    driver.find_element(By.ID, "seed").send_keys(str(SEED))
    make(driver, "a red star")
    assert text(driver, "caption").endswith(f"seed {SEED}")
    driver.find_element(By.ID, "compare").send_keys(Keys.ENTER)
    until(driver, lambda d: text(d, "compare-prompt") == f"a red star · seed {SEED}")
    until(driver, rests)


@pytest.mark.parametrize("button", ["go", "compare"])
def test_the_keyboards_focus_stays_on_the_button_that_was_pressed(
    browser: Callable[..., Any], address: Address, button: str
) -> None:
    process = Process()
    address.behind(process)
    process.pool.seconds = 1.0
    driver = browser()
    driver.find_element(By.ID, "prompt").send_keys("a red star")
    pressed = driver.find_element(By.ID, button)
    pressed.send_keys(Keys.ENTER)
    until(driver, lambda d: not rests(d))
    assert focus(driver) == button
    # It is told as disabled, and does nothing.
    pressed.send_keys(Keys.ENTER)
    until(driver, rests)
    assert focus(driver) == button
    assert len([p for p in process.asked if p == "/console/generate"]) == (
        1 if button == "go" else len(process.watch.router.service.ladder)
    )
    # Stop goes away when it was pressed: the focus is back where it came from.
    process.pool.seconds = 30.0
    pressed.send_keys(Keys.ENTER)
    until(driver, lambda d: d.find_element(By.ID, "stop").is_displayed())
    driver.find_element(By.ID, "stop").send_keys(Keys.ENTER)
    until(driver, rests)
    assert focus(driver) == button
    assert not driver.find_element(By.ID, "stop").is_displayed()


def test_what_is_denoised_does_not_wait_and_the_mix_is_drawn(
    browser: Callable[..., Any], address: Address
) -> None:
    driver = browser()
    until(driver, lambda d: len(chart(d, "fleet")) == 1)
    assert driver.find_element(By.CSS_SELECTOR, "#chart-fleet .legend").text == "K 0: 2"
    label = driver.find_element(By.CSS_SELECTOR, "#chart-fleet svg").get_attribute("aria-label")
    assert label == "Workers, by K, last 5 minutes: 2 ready now, K 0: 2"
    assert driver.find_element(By.CSS_SELECTOR, "#chart-queue .now").text.startswith("0 requests")
