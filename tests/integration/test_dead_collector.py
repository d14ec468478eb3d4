"""A collector of traces that is gone, or hangs: requests are served, and the router ends in time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from router_process import client_of, fake_workers, router_process


@pytest.mark.parametrize("dead", ["refuses", "never answers"])
async def test_a_dead_collector_harms_nothing(tmp_path: Path, dead: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if dead == "never answers":
            silent.listen(16)
        extra = {"--otlp-endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with router_process(tmp_path, extra=extra) as process:
            async with client_of(process) as client, fake_workers(2, step_seconds=0.001) as workers:
                await client.apply(*workers)
                answers = await asyncio.gather(*(client.post(prompt="a star") for _ in range(20)))
                assert [a.status_code for a in answers] == [200] * 20
                # It has something to send, and tries.
                await asyncio.sleep(1.5)
                answers = await asyncio.gather(*(client.post(prompt="a star") for _ in range(20)))
                assert [a.status_code for a in answers] == [200] * 20
                assert (await client.counted())["served_in_slo"] == 40
            began = time.monotonic()
            os.kill(process.popen.pid, signal.SIGTERM)
            assert await process.ended() == 0
            assert time.monotonic() - began < 8
        assert "traces were not sent" in process.stderr.read_text()
