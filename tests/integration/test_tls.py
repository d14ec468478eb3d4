"""TLS between parts: who is let in, and files that change while everything runs."""

from __future__ import annotations

import contextlib
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from certificates import authority, issue, needs_openssl
from fake_worker import FakeWorker
from router_process import Process, code_of, free_ports, router_process, until

from gesso import tls as tls_module
from gesso.rpc.v1 import (
    image_pb2,
    image_pb2_grpc,
    router_pb2,
    worker_pb2,
    worker_pb2_grpc,
)
from gesso.tls import AUTHORITY, CERTIFICATE, KEY, SERVER_NAME, Tls
from gesso_operator.clients import Clients, Failure
from gesso_worker.cache.peers import Peers

pytestmark = needs_openssl


@dataclass
class Fleet:
    process: Process
    ours: Path  # the authority of the parts
    parts: Path  # what the router has
    folder: Path

    def issued(self, name: str, by: Path | None = None) -> Tls:
        issue(by or self.ours, self.folder / name)
        return Tls(self.folder / name)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("tls")
    ours = authority(folder)
    issue(ours, folder / "router")
    control, health = free_ports()
    extra = {
        "--tls-dir": str(folder / "router"),
        "--control": f"127.0.0.1:{control}",
        "--health": f"127.0.0.1:{health}",
    }
    with router_process(folder, extra=extra) as process:
        process.control_port = control
        yield Fleet(process, ours, folder / "router", folder)


@pytest.fixture
async def worker(fleet: Fleet) -> AsyncIterator[FakeWorker]:
    made = await FakeWorker("worker-0", steps=50, step_seconds=0.001).start(
        tls=fleet.issued("worker")
    )
    yield made
    await made.stop()


async def apply(fleet: Fleet, clients: Clients, worker: FakeWorker) -> None:
    request = router_pb2.ApplyPlanRequest(
        plan=router_pb2.Plan(revision=time.time_ns()),
        workers=[router_pb2.WorkerEndpoint(name=worker.name, address=worker.address)],
    )
    address = f"127.0.0.1:{fleet.process.control_port}"
    assert not isinstance(await clients.apply_plan(address, request), Failure)

    async def ready() -> bool:
        report = await clients.report(address)
        return not isinstance(report, Failure) and report.workers_ready == 1

    await until(ready)


def trusting(authority_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority_file))


async def image_over_grpc(fleet: Fleet) -> bytes:
    """As a client does, which has no certificate."""
    credentials = grpc.ssl_channel_credentials((fleet.parts / AUTHORITY).read_bytes())
    address = f"localhost:{fleet.process.grpc_port}"
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        request = image_pb2.GenerateRequest(prompt="a star", seed=1)
        events = [e async for e in stub.Generate(request, timeout=10)]
    return bytes(events[-1].image.data)


async def image_over_https(fleet: Fleet) -> int:
    base = f"https://localhost:{fleet.process.http_port}"
    context = trusting(fleet.parts / AUTHORITY)
    async with httpx.AsyncClient(base_url=base, verify=context, trust_env=False) as http:
        answer = await http.post("/v1/images/generations", json={"prompt": "a star"})
        return answer.status_code


async def test_clients_need_no_certificate_and_parts_do(fleet: Fleet, worker: FakeWorker) -> None:
    clients = Clients(tls=fleet.issued("operator"))
    await apply(fleet, clients, worker)
    await clients.close()
    assert await image_over_grpc(fleet) == b"image of 1 by worker-0"
    assert await image_over_https(fleet) == 200

    async def fails(clients: Clients, address: str) -> None:
        assert isinstance(await clients.stats(address), Failure)
        assert isinstance(await clients.report(address), Failure)
        await clients.close()

    theirs = authority(fleet.folder, "stranger")
    control = f"127.0.0.1:{fleet.process.control_port}"
    for address in (worker.address, control):
        await fails(Clients(read_seconds=1.0), address)  # in clear
        await fails(
            Clients(read_seconds=1.0, tls=fleet.issued(f"theirs-{address[-5:]}", theirs)), address
        )
        credentials = grpc.ssl_channel_credentials((fleet.parts / AUTHORITY).read_bytes())
        options = (("grpc.ssl_target_name_override", SERVER_NAME),)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            # The right authority, but no certificate of its own.
            stub = worker_pb2_grpc.WorkerStub(channel)
            code, _, _ = await code_of(stub.Stats(worker_pb2.StatsRequest(), timeout=2))
            assert code is grpc.StatusCode.UNAVAILABLE


async def test_nobody_is_taken_for_a_worker_by_another_name(fleet: Fleet) -> None:
    issue(fleet.ours, fleet.folder / "other", names=("somebody.example",))
    impostor = await FakeWorker("worker-0").start(tls=Tls(fleet.folder / "other"))
    clients = Clients(read_seconds=2.0, tls=fleet.issued("operator-2"))
    answer = await clients.stats(impostor.address)
    assert isinstance(answer, Failure)
    await clients.close()
    peers = Peers(fleet.issued("peer"))
    with pytest.raises(Exception, match="UNAVAILABLE"):
        await peers.room(impostor.address, "fake", 2.0)
    await peers.close()
    await impostor.stop()


async def test_files_are_taken_up_without_a_restart(fleet: Fleet, worker: FakeWorker) -> None:
    """A new authority, as when one is compromised: all parts get it, and nothing is restarted."""
    clients = Clients(tls=fleet.issued("operator"))
    await apply(fleet, clients, worker)
    assert await image_over_grpc(fleet) == b"image of 1 by worker-0"
    before = (fleet.parts / CERTIFICATE).read_bytes()
    old = trusting(fleet.parts / AUTHORITY)
    ours = authority(fleet.folder, "second")
    for part in ("router", "worker", "operator"):
        issue(ours, fleet.folder / part, serial=2)
    assert (fleet.parts / CERTIFICATE).read_bytes() != before

    async def image() -> bool:
        try:
            return await image_over_grpc(fleet) == b"image of 1 by worker-0"
        except grpc.aio.AioRpcError:
            return False

    async def page() -> bool:
        try:
            return await image_over_https(fleet) == 200
        except httpx.ConnectError:
            return False

    await until(image)
    await until(page)

    async def reported() -> bool:
        answer = await clients.report(f"127.0.0.1:{fleet.process.control_port}")
        return not isinstance(answer, Failure) and answer.workers_ready == 1

    await until(reported)
    await clients.close()
    base = f"https://localhost:{fleet.process.http_port}"
    async with httpx.AsyncClient(base_url=base, verify=old, trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/healthz")


async def test_half_a_change_is_not_taken_up(fleet: Fleet) -> None:
    now = 0.0
    issue(fleet.ours, fleet.folder / "half")
    tls = Tls(fleet.folder / "half", clock=lambda: now)
    key = fleet.folder / "half" / KEY
    right = key.read_bytes()
    issue(fleet.ours, fleet.folder / "whole")
    replace(key, (fleet.folder / "whole" / KEY).read_bytes())
    now = 2.0
    assert tls.refresh() == 1
    replace(
        fleet.folder / "half" / CERTIFICATE, (fleet.folder / "whole" / CERTIFICATE).read_bytes()
    )
    assert tls.refresh() == 1  # it was looked at a moment ago
    now = 4.0
    assert tls.refresh() == 2
    assert right != key.read_bytes()


@pytest.mark.parametrize("when", ["read", "loaded"])
async def test_a_change_while_the_files_are_read_leaves_what_was_in_force(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    now, live = 0.0, tmp_path / "live"
    for serial in (11, 12, 13):
        issue(fleet.ours, tmp_path / str(serial), serial=serial)
    issue(fleet.ours, live, serial=11)
    tls = Tls(live, clock=lambda: now)
    context = tls.http_context()
    assert served(context, fleet.ours) == 11

    def put(serial: int, *names: str) -> None:
        for name in names:
            replace(live / name, (tmp_path / str(serial) / name).read_bytes())

    put(12, CERTIFICATE, KEY)
    truly = {"read": tls_module.read, "loaded": tls._loaded}[when]

    def racing(*folder: Path) -> object:
        if when == "loaded":
            put(13, KEY)
        found = truly(*folder)
        put(13, KEY)
        return found

    with monkeypatch.context() as patched:
        where, name = (tls_module, "read") if when == "read" else (tls, "_loaded")
        patched.setattr(where, name, racing)
        for look in (2.0, 4.0, 6.0):
            now = look
            assert tls.refresh() == 1
            assert served(context, fleet.ours) == 11
    # What is wrong is told once, not at each look; files that were changed since are others.
    assert len(caplog.records) == 2
    put(13, CERTIFICATE)
    now = 8.0
    assert served(context, fleet.ours) == 13  # a connection looks, too
    assert tls.version == 2


def served(context: ssl.SSLContext, by: Path) -> int:
    """The serial number of the certificate that a connection to a server gets."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting(by / AUTHORITY).wrap_bio(to_client, to_server, server_hostname="localhost")
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    found = client.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


def replace(path: Path, data: bytes) -> None:
    new = path.with_name("put")
    new.write_bytes(data)
    new.replace(path)


@pytest.mark.parametrize("name", [CERTIFICATE, KEY, AUTHORITY])
@pytest.mark.parametrize("spoil", ["gone", "empty", "words"])
def test_files_that_cannot_be_used_are_told_at_the_start(
    fleet: Fleet, tmp_path: Path, name: str, spoil: str
) -> None:
    issue(fleet.ours, tmp_path / "bad")
    path = tmp_path / "bad" / name
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if spoil == "empty" else b"a secret that must not be told")
    with pytest.raises(ValueError, match=r"tls.crt|tls.key|ca.crt") as error:
        Tls(tmp_path / "bad")
    assert "must not be told" not in str(error.value)
