"""The console in a real Chromium, over a real router and two workers with the tiny model.

GESSO_SCREENSHOTS=FOLDER keeps pictures of it.
"""

import base64
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from gesso.api.local_state import StateDir
from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_names
from gesso_operator.local.ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from chromium import SECONDS, browsers, chart, complaints, needs_chromium, text, until
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "tiny.yaml"
COLOURS = ("red", "blue", "green", "yellow")
PROMPTS = [
    f"a {size} {colour} {shape} {where} a small {other} ring"
    for shape, where in (("star", "above"), ("square", "left of"), ("circle", "below"))
    for colour, other in zip(COLOURS, COLOURS[1:] + COLOURS[:1], strict=True)
    for size in ("large", "small")
]

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(
        not {TINY_SDXL, TINY_CLIP} <= set(builtin_names()),
        reason="the builtin models are not there",
    ),
    pytest.mark.timeout(900),
]


def post(url, body):
    request = urllib.request.Request(
        f"{url}/v1/images/generations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return dict(answer.headers)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A service with its gallery on; gives the router's URL."""
    folder = tmp_path_factory.mktemp("fleet")
    # A deadline that a busy test machine keeps as well.
    spec = SAMPLE.read_text().replace("latencySeconds: 4", "latencySeconds: 30")
    assert "console: Full" in spec
    (folder / "tiny.yaml").write_text(spec)
    place, http = StateDir(folder / ".gesso" / "tiny"), free_port()
    ports = ("--grpc-port", str(free_port()), "--http-port", str(http))
    command = [sys.executable, "-m", "gesso.cli.main"]
    up = subprocess.run(
        [*command, "up", "tiny.yaml", "--timeout", "300", *ports],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert up.returncode == 0, up.stderr
    supervisor = psutil.Process(place.read_state().pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    yield f"http://127.0.0.1:{http}"
    subprocess.run([*command, "down"], cwd=folder, capture_output=True, timeout=60, check=False)
    for process in psutil.wait_procs(family, timeout=20)[1]:
        process.kill()


@pytest.fixture(scope="module")
def load(fleet):
    """Somebody else's prompts, one after the other, until the tests are over."""
    over, served = threading.Event(), []

    def play():
        n = 0
        while not over.is_set():
            try:
                served.append(post(fleet, {"prompt": PROMPTS[n % len(PROMPTS)], "seed": n}))
            except (OSError, urllib.error.HTTPError) as error:
                served.append({"error": str(error)})
            n += 1
            over.wait(0.3)

    players = [threading.Thread(target=play, name=f"load {i}") for i in range(2)]
    for player in players:
        player.start()
    yield served
    over.set()
    for player in players:
        player.join(timeout=SECONDS)


@pytest.fixture
def browser(fleet):
    with browsers(fleet) as start:
        yield start


def keep(driver, name):
    folder = os.environ.get("GESSO_SCREENSHOTS")
    if folder:
        # No picture of an image that is fading in; an animation without an end cannot be ended.
        driver.execute_script(
            "document.getAnimations().forEach(a => { try { a.finish() } catch { a.cancel() } })"
        )
        size = driver.execute_script("return [innerWidth, document.body.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], 2600), "scale": 1}
        shot = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )
        Path(folder, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def test_a_prompt_typed_is_seen_to_become_an_image_and_the_charts_move(browser, fleet, load):
    driver = browser()
    driver.execute_script(
        "window.seen = [];"
        "const [caption, progress] = ['caption', 'progress'].map((i) => document.getElementById(i));"
        "window.previews = new Set();"
        "new MutationObserver(() => { seen.push([caption.textContent, progress.value]);"
        " const p = document.querySelector('#canvas img.preview'); if (p) previews.add(p.src); }).observe("
        "document.getElementById('easel'), {subtree: true, childList: true, attributes: true})"
    )
    # By keyboard alone.
    driver.find_element(By.ID, "prompt").send_keys("a large red star above a small blue ring")
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    until(driver, lambda d: "made in" in text(d, "caption"))
    shown = driver.find_element(By.CSS_SELECTOR, "#canvas img")
    assert shown.get_attribute("alt") == "a large red star above a small blue ring"
    assert (
        until(driver, lambda d: d.execute_script("return arguments[0].naturalWidth", shown)) == 64
    )
    seen = driver.execute_script("return seen")
    assert any(caption.startswith("Denoising on worker-") for caption, _ in seen)
    assert len({done for _, done in seen}) >= 4, "progress moves"
    previews = driver.execute_script("return [...previews]")
    assert len(previews) >= 3, "one after the other, each another image"
    assert all(source.startswith("data:image/jpeg;base64,") for source in previews)

    until(driver, lambda _: len(load) > 12)
    assert not [a["error"] for a in load if "error" in a]
    until(driver, lambda d: len(chart(d, "mix")) == 6)
    before = {name: chart(driver, name) for name in ("mix", "slo", "quality", "queue")}
    until(driver, lambda d: all(chart(d, name) != was for name, was in before.items()))
    areas = chart(driver, "fleet")
    legend = driver.find_elements(By.CSS_SELECTOR, "#chart-fleet .legend li")
    assert 1 <= len(areas) == len(legend), "an area of each variant that there was"
    assert sum(int(re.fullmatch(r"K \d+: (\d)", item.text)[1]) for item in legend) == 2
    told = driver.find_element(By.CSS_SELECTOR, "#chart-fleet svg").get_attribute("aria-label")
    assert re.fullmatch(r"Workers, by K, last 5 minutes: 2 ready now(, K \d+: [12])+", told)
    assert re.match(r"\d+(\.\d)?\s%", driver.find_element(By.CSS_SELECTOR, "#chart-slo .now").text)
    assert len(driver.find_elements(By.CSS_SELECTOR, "#workers li")) == 2
    assert "mix" in until(driver, lambda d: text(d, "why"))
    # Every picture says its K; those of similar prompts say where their latents came from. An idle fleet serves
    # in full, unless it is told otherwise.
    post(fleet, {"prompt": PROMPTS[0], "skipped_steps": 10, "slo_ms": 60_000})
    wall = until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#wall > li"))
    assert all("K " in item.text for item in wall)
    link = until(driver, lambda d: d.find_element(By.CSS_SELECTOR, "#wall .from a"))
    assert re.match(r"from image \d+, similarity [01]\.\d\d, latent on worker-\d", link.text)
    origin = driver.find_element(By.CSS_SELECTOR, link.get_attribute("hash"))
    assert origin.find_element(By.CLASS_NAME, "prompt").text in PROMPTS
    assert complaints(driver) == []


def test_one_prompt_at_every_k_side_by_side(browser, load):
    driver = browser()
    until(driver, lambda _: len(load) > 12)
    driver.find_element(By.ID, "prompt").send_keys(PROMPTS[0])
    driver.find_element(By.ID, "compare").click()
    until(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, "#strip img")) >= 4)
    compare = driver.find_element(By.ID, "compare")
    until(driver, lambda d: compare.get_attribute("aria-disabled") == "false")
    slider = driver.find_element(By.ID, "level")
    driver.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.HOME)
    assert slider.get_attribute("aria-valuetext") == "0 of 50 steps skipped"
    for k in (5, 10):
        slider.send_keys(Keys.ARROW_RIGHT)
        assert text(driver, "level-out") == f"{k} of 50"
        assert text(driver, "right-caption").startswith(f"K {k}")
    # The pixels at K = 0 and at a large K are not the same image.
    slider.send_keys(Keys.END)
    left, right = (
        driver.find_element(By.CSS_SELECTOR, f"#{side} img").get_attribute("src")
        for side in ("left", "right")
    )
    assert left != right
    keep(driver, "console-light")
    assert complaints(driver) == []


def test_what_is_refused_is_said_and_the_page_goes_on(browser):
    driver = browser()
    driver.find_element(By.TAG_NAME, "summary").click()
    driver.find_element(By.ID, "deadline").send_keys("0.1")
    driver.find_element(By.ID, "prompt").send_keys("a star")
    driver.find_element(By.ID, "go").click()
    until(driver, lambda d: "deadline" in text(d, "prompt-error"))
    driver.find_element(By.ID, "deadline").clear()
    driver.find_element(By.ID, "go").click()
    until(driver, lambda d: "made in" in text(d, "caption"))
    assert text(driver, "prompt-error") == ""


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("console-dark", 1360, True), ("console-360", 360, False)]
)
def test_it_fits_is_dark_or_light_and_can_be_read_out(browser, load, name, width, dark):
    driver = browser(width, 780, dark, still=True)
    driver.find_element(By.ID, "prompt").send_keys(PROMPTS[3] + Keys.ENTER)
    until(driver, lambda d: "made in" in text(d, "caption"))
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#wall > li"))
    until(driver, lambda d: len(chart(d, "mix")) == 6)
    overflow = driver.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow == 0, "nothing is wider than the window"
    paper = driver.execute_script(
        "return getComputedStyle(document.documentElement).backgroundColor"
    )
    light = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert (light < 64) is dark
    # Chromium's own accessibility tree: everything that can be reached has a name.
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    reached = [n for n in nodes if not n.get("ignored") and _focusable(n)]
    assert len(reached) >= 5
    assert [n["role"]["value"] for n in reached if not n["name"]["value"].strip()] == []
    # What reading needs: contrast of at least 4.5 to 1 for text on paper and on cards.
    for selector in (".quiet", "figcaption", "label", "#go"):
        assert contrast(driver, selector) >= 4.5, selector
    # The first stop is the way past the header; the next that can be typed in is the prompt.
    driver.execute_script(
        "const top = document.createElement('span'); top.tabIndex = -1; document.body.prepend(top); top.focus()"
    )
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == "Skip to the prompt"
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("id") == "prompt"
    keep(driver, name)
    assert complaints(driver) == []


def _focusable(node):
    return any(
        p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", ())
    ) and node["role"]["value"] not in ("RootWebArea",)


def contrast(driver, selector):
    colours = driver.execute_script(
        "const e = document.querySelector(arguments[0]); let b = e, under;"
        "do { under = getComputedStyle(b).backgroundColor; b = b.parentElement }"
        " while (b && /, 0\\)$/.test(under)); return [getComputedStyle(e).color, under]",
        selector,
    )

    def luminance(colour):
        parts = [int(p) / 255 for p in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted(map(luminance, colours), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_page_of_another_origin_gets_nothing(fleet, load):
    request = urllib.request.Request(
        f"{fleet}/console/generate", b'{"prompt": "a star"}', {"Content-Type": "text/plain"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 415
    refused.value.close()
    with urllib.request.urlopen(fleet, timeout=10) as page:
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        body = page.read().decode()
    assert not re.findall(r"(?:src|href)=\"(?!/console/|#)", body), "no outside host"
