"""With which flags a local fleet starts its processes."""

import pytest

from gesso.api.local_state import StateDir
from gesso_operator.clients import Clients
from gesso_operator.local.fleet import LocalFleet
from gesso_operator.logs import Log
from gesso_worker.server import parse_flags


@pytest.mark.parametrize("threads", [1, 4])
async def test_a_worker_has_the_threads_of_the_service(service, tmp_path, threads):
    asked = service.model_copy(deep=True)
    workers = asked.spec.workers.model_copy(update={"threads": threads})
    asked = asked.model_copy(update={"spec": asked.spec.model_copy(update={"workers": workers})})
    fleet = LocalFleet(asked, StateDir(tmp_path), 7001, 7080, Clients(), Log("test"))
    for worker in fleet.workers:
        _, _, _, *flags = worker._command("127.0.0.1:7101")
        assert parse_flags(flags).threads == threads
