"""The load generator: when requests go out, from when latencies count, what ends how, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp.web
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gesso.cli.main import app
from gesso.csv_input import InputError
from gesso_simulator.bench.load import Asked, make_load
from gesso_simulator.bench.main import bench
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.bench.report import plot, summarise
from gesso_simulator.bench.send import Ending, Result, Terms, sender


@dataclass(frozen=True)
class Due:
    at_s: float


async def test_one_that_hangs_holds_up_no_other() -> None:
    """A closed loop, or one that counted from sending, would hide what a stalled service does."""
    gate, lags = asyncio.Event(), list[float]()

    async def send(request: Due, start: float) -> float:
        if request.at_s == 0:
            await gate.wait()
        elif request.at_s == 0.05:
            gate.set()
        return time.monotonic() - start - request.at_s

    async with asyncio.timeout(20):
        took = await open_loop([Due(0), Due(0.02), Due(0.05)], send, on_sent=lags.append)
    assert took[0] >= 0.05, "it was released by one that came later"
    assert len(lags) == 3


async def test_latency_counts_from_when_it_was_due_not_from_when_it_was_sent() -> None:
    async def send(request: Due, start: float) -> float:
        time.sleep(0.03)  # holds up the whole loop  # noqa: ASYNC251
        return time.monotonic() - start - request.at_s

    lags: list[float] = []
    took = await open_loop([Due(0)] * 4, send, on_sent=lags.append)
    assert sorted(took) == took
    assert took[-1] >= 4 * 0.03


async def test_ending_the_run_ends_what_is_under_way() -> None:
    ended = asyncio.Event()

    async def send(request: Due, start: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(open_loop([Due(0)], send))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(ended.wait(), 5)


# At least fifty requests are expected, so that there is one.
@settings(deadline=None, max_examples=25)
@given(st.floats(5, 20), st.floats(10, 20), st.integers(0, 1000))
def test_arrivals_ascend_and_the_same_seed_gives_the_same_load(
    rate: float, seconds: float, seed: int
) -> None:
    load = make_load(rate, seconds, None, 1.0, None, seed)
    times = [r.at_s for r in load.requests]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < seconds
    assert load == make_load(rate, seconds, None, 1.0, None, seed)


def test_arrivals_are_poisson() -> None:
    """Counts of a second have the mean's variance; gaps have their mean's deviation."""
    times = [r.at_s for r in make_load(20.0, 500.0, None, 1.0, None, 3).requests]
    counts = np.histogram(times, np.arange(0, 501.0))[0]
    gaps = np.diff(times)
    assert counts.mean() == pytest.approx(20, rel=0.05)
    assert counts.var() == pytest.approx(20, rel=0.2)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)


def test_a_trace_gives_its_counts_and_prompts_come_in_turn(tmp_path: Path) -> None:
    trace, prompts = tmp_path / "t.csv", tmp_path / "p.txt"
    trace.write_text("t_s,count\n0,3\n10,0\n20,5\n")
    prompts.write_text("a red star\n\n  a blue ring \n")
    load = make_load(None, None, trace, 1.0, prompts, 1)
    assert load.seconds == 30
    steps = Counter(int(r.at_s // 10) for r in load.requests)
    assert steps == {0: 3, 2: 5}
    assert [r.prompt for r in load.requests[:3]] == ["a red star", "a blue ring", "a red star"]
    assert len(make_load(None, 10, trace, 2.0, prompts, 1).requests) == 6
    log = tmp_path / "log.csv"
    log.write_text("prompt_row,prompt\n4,a green square\n")
    assert make_load(None, None, trace, 1.0, log, 1).requests[0].prompt == "a green square"


@pytest.mark.parametrize(
    ("rate", "trace", "prompts", "message"),
    [
        (None, None, None, "--rate: missing"),
        (1.0, "t.csv", None, "--rate: is not allowed with --trace"),
        (1e9, None, None, "--rate: 1e+09 is not allowed: at most 1000000"),
        (0.0001, None, None, "no request is due within 10 s"),
        (1.0, None, "empty.txt", "empty.txt: lines: 0 is not allowed"),
        (1.0, None, "missing.txt", "missing.txt: cannot be read"),
        (None, "missing.csv", None, "missing.csv"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(
    tmp_path: Path, rate: float | None, trace: str | None, prompts: str | None, message: str
) -> None:
    (tmp_path / "t.csv").write_text("t_s,count\n0,3\n10,1\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises((InputError, ValueError)) as refused:
        make_load(
            rate,
            10.0,
            tmp_path / trace if trace else None,
            1.0,
            tmp_path / prompts if prompts else None,
            1,
        )
    assert message in str(refused.value)


def result(ending: Ending, latency: float = 1.0, k: int | None = 0) -> Result:
    return Result(0, 0.0, ending, latency, "why", k, 0.5, 0.9, "w")


def test_figures_count_each_request_once_and_only_images_have_latencies() -> None:
    results = [
        result(Ending.IN_SLO, 1.0, 0),
        result(Ending.IN_SLO, 2.0, 10),
        result(Ending.LATE, 9.0),
    ]
    results += [result(e, 99.0) for e in (Ending.SHED, Ending.DROPPED, Ending.FAILED, Ending.LOST)]
    told = summarise(results, 10.0, 4.0, [0.0, 0.2])
    assert told["offered"] == sum(told[e.value] for e in Ending) == 7
    assert told["slo_attainment"] == pytest.approx(2 / 7)
    assert told["images_in_slo_per_s"] == 0.2
    assert (told["latency_seconds"]["p50"], told["latency_seconds"]["max"]) == (2.0, 9.0)
    assert told["images_by_skipped_steps"] == {"0": 2, "10": 1}
    assert told["cache_hit_ratio"] == pytest.approx(1 / 3)
    assert told["send_lag_seconds"]["max"] == 0.2
    assert told["faults"] == {"why": 2}
    none = summarise([result(Ending.SHED)], 10.0, 4.0, [0.0])
    assert (none["latency_seconds"]["p50"], none["cache_hit_ratio"]) == (None, None)
    with pytest.raises(ValueError, match="one at least"):
        summarise([], 1.0, 1.0, [])


@pytest.fixture
async def service():  # type: ignore[no-untyped-def]
    """Answers by the prompt; keeps the requests."""
    seen: list[dict[str, object]] = []

    async def generations(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        body = await request.json()
        seen.append(body | {"key": request.headers.get("Authorization")})
        prompt = body["prompt"]
        if prompt == "hang":
            await asyncio.sleep(60)
        if prompt == "slow":
            await asyncio.sleep(0.3)
        if prompt == "break":
            assert request.transport is not None
            request.transport.close()
        status = {"shed": 429, "dropped": 504, "failed": 503}.get(prompt, 200)
        headers = {"X-Gesso-Skipped-Steps": "10", "X-Gesso-Predicted-Quality": "0.97"}
        headers |= {"X-Gesso-Similarity": "no number", "X-Gesso-Worker": "w"}
        return aiohttp.web.json_response({"data": []}, status=status, headers=headers)

    made = aiohttp.web.Application()
    made.router.add_post("/v1/images/generations", generations)
    runner = aiohttp.web.AppRunner(made, shutdown_timeout=0.1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


@pytest.mark.parametrize(
    ("prompt", "ending"),
    [
        ("a star", Ending.IN_SLO),
        ("slow", Ending.LATE),
        ("shed", Ending.SHED),
        ("dropped", Ending.DROPPED),
        ("failed", Ending.FAILED),
        ("break", Ending.LOST),
        ("hang", Ending.LOST),
    ],
)
async def test_every_answer_has_its_ending(service, prompt: str, ending: Ending) -> None:  # type: ignore[no-untyped-def]
    url, seen = service
    slo = 0.2 if prompt in ("slow", "hang") else 30.0
    terms = Terms(slo, min_quality=0.9, grace_seconds=1.0, api_key="secret")
    async with sender(url, terms) as send:
        told = await send(Asked(0, 0.0, prompt, 5), time.monotonic())
    assert told.ending is ending
    assert seen[0] == {
        "prompt": prompt, "seed": 5, "slo_ms": slo * 1000, "min_quality": 0.9, "key": "Bearer secret",
    }  # fmt: skip
    if ending is Ending.IN_SLO:
        assert (told.skipped_steps, told.quality, told.similarity) == (10, 0.97, None)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host:1",
        "host:1",
        "http://",
        "",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:abc",
        "http://127.0.0.1:0",
        "http://[::1",
        "grpc://127.0.0.1:99999",
        "grpc://127.0.0.1",
    ],
)
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--url: {url!r} is not allowed: ")):
        async with sender(url, Terms(1.0)):
            pass


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there_is_lost_and_told(tmp_path: Path, scheme: str) -> None:
    load = make_load(5.0, 1.0, None, 1.0, None, 1)
    figures = bench(
        f"{scheme}://127.0.0.1:9",
        load,
        Terms(1.0, grace_seconds=1.0),
        tmp_path / "f.json",
        tmp_path / "f.png",
    )
    assert figures is not None
    assert (figures["interrupted"], figures["under_way"]) == (False, 0)
    assert figures["lost"] == figures["offered"] == len(load.requests)
    assert figures["faults"]
    assert json.loads((tmp_path / "f.json").read_text()) == figures
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"


def test_a_picture_is_drawn_of_every_ending(tmp_path: Path) -> None:
    results = [result(e, 1.0, k) for e in Ending for k in (0, 10)]
    plot(tmp_path / "a.png", results, 10.0, 4.0)
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--url", "nonsense", "--rate", "1"), "--url: 'nonsense' is not allowed"),
        ((), "--rate: missing"),
        (("--rate", "1", "--json", "/nowhere/f.json"), "its folder is not there"),
    ],
)
def test_the_command_says_what_is_wrong(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", "--seconds", "5", *words])
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output
    assert sys.exc_info() == (None, None, None)
