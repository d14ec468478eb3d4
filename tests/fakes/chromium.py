"""A Chromium without a window, for tests of the console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: pip install 'gesso[dev]'"
)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 90

needs_chromium = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no Chromium with its driver: apt-get install chromium chromium-driver",
)


@contextmanager
def browsers(url: str) -> Iterator[Callable[..., Any]]:
    """Gives what opens a browser on the page at a URL; all of them are closed in the end."""
    started = []

    def start(width: int = 1360, height: int = 900, dark: bool = False, still: bool = False) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        started.append(driver)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(url)
        until(driver, lambda d: "workers ready" in text(d, "health-text"))
        return driver

    yield start
    for driver in started:
        driver.quit()


def until(driver: Any, holds: Callable[[Any], Any], seconds: float = SECONDS) -> Any:
    """Waits for what is to hold of a page, and gives it."""
    return WebDriverWait(driver, seconds, poll_frequency=0.05).until(holds)


def text(driver: Any, element: str) -> str:
    """The text of an element, by its id."""
    return str(driver.find_element(By.ID, element).text)


def complaints(driver: Any) -> list[str]:
    """What the browser found fault with."""
    return [e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"]


def chart(driver: Any, name: str) -> list[str]:
    """The lines and areas of a chart."""
    paths: list[str] = driver.execute_script(
        "return [...document.querySelectorAll(`#chart-${arguments[0]} path`)].map((p) => p.getAttribute('d'))",
        name,
    )
    return paths
