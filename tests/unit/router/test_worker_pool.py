"""Look-ups of the pool that nobody answers: which count as the shard's fault."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from gesso_router.fleet import Endpoint, Fleet
from gesso_router.routing.door import AT_ONCE_SECONDS
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool


@pytest.mark.parametrize(("seconds", "counted"), [(AT_ONCE_SECONDS, 0), (2 * AT_ONCE_SECONDS, 1)])
async def test_a_look_up_that_was_cut_short_is_not_the_shards_fault(
    seconds: float, counted: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        pool = WorkerPool(Fleet(50, 8, 3), RouterSettings())
        worker = Endpoint("a", f"{host}:{port}", 0)
        pool.apply([worker])
        try:
            assert await pool.lookup("", np.zeros(4, np.float32), [worker], seconds) == []
            assert (pool.probed, pool.unanswered_lookups) == (1, counted)
        finally:
            await pool.close()
