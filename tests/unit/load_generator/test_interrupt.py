"""Ctrl-C during a load: what has ended is told, what is under way is no loss."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp.web
import pytest

#: The command, where summing up takes as long as one likes.
SLOW_SUM = """
import sys, time
from gesso_simulator.bench import main as bench
def summarise(*_):
    print("summing up", flush=True)
    time.sleep(600)
bench.summarise = summarise
from gesso.cli.main import main
main()
"""


@pytest.fixture
async def service() -> AsyncIterator[tuple[str, list[str]]]:
    """Its URL, and the prompts that came; "hang" has no answer."""
    seen: list[str] = []

    async def generations(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        prompt = (await request.json())["prompt"]
        seen.append(prompt)
        if prompt == "hang":
            await asyncio.sleep(600)
        return aiohttp.web.json_response({"data": []})

    made = aiohttp.web.Application()
    made.router.add_post("/v1/images/generations", generations)
    runner = aiohttp.web.AppRunner(made, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


async def started(url: str, *program: str, **files: Path) -> asyncio.subprocess.Process:
    """A load of ten minutes, by a program that takes the command's words."""
    words = ["bench", "--url", url, "--rate", "40", "--seconds", "600"]
    words += [w for name, path in files.items() for w in (f"--{name}", str(path))]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def interrupted(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def until(seen: list[str], count: int) -> None:
    async with asyncio.timeout(60):
        while len(seen) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_has_ended_is_told_and_what_is_under_way_is_not_lost(
    service: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, seen = service
    prompts, figures, picture = tmp_path / "p.txt", tmp_path / "f.json", tmp_path / "f.png"
    prompts.write_text("a star\na ring\nhang\n")
    began = time.monotonic()
    process = await started(
        url, "-m", "gesso.cli.main", prompts=prompts, json=figures, plot=picture
    )
    await until(seen, 30)
    code, out, err = await interrupted(process)
    assert code == 130, err
    told = json.loads(figures.read_text())
    assert told["interrupted"] is True
    assert 0 < told["seconds"] < time.monotonic() - began
    assert told["offered"] == told["served_in_slo"] >= 19
    assert told["under_way"] >= seen.count("hang") - 1 >= 9
    assert told["lost"] == told["failed"] == 0
    assert told["offered_per_s"] == pytest.approx(told["offered"] / told["seconds"])
    assert (
        f"interrupted           after {told['seconds']:.1f} s, with {told['under_way']} under way"
        in out
    )
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "Traceback" not in err


async def test_without_an_end_so_far_there_is_nothing_to_tell(
    service: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, seen = service
    prompts, figures = tmp_path / "p.txt", tmp_path / "f.json"
    prompts.write_text("hang\n")
    process = await started(url, "-m", "gesso.cli.main", prompts=prompts, json=figures)
    await until(seen, 2)
    code, out, err = await interrupted(process)
    assert (code, out) == (130, "")
    assert "gesso: interrupted before a request had ended" in err
    assert not figures.exists()


async def test_a_second_one_ends_at_once(service: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = service
    prompts, figures = tmp_path / "p.txt", tmp_path / "f.json"
    prompts.write_text("a star\n")
    process = await started(url, "-c", SLOW_SUM, prompts=prompts, json=figures)
    await until(seen, 3)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"summing up\n"
    code, _, err = await interrupted(process)
    assert code == 130
    assert "Traceback" not in err
    assert not figures.exists()
