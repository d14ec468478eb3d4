"""The operator's process: `python -m gesso_operator.cluster --router-image IMAGE --worker-image IMAGE`.

Exits 0 on SIGTERM or SIGINT after letting go of its Lease, 1 when its watches fail for good, 2 with one line on
bad flags, files, a port in use or without a cluster to talk to.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gesso import logs
from gesso_operator.clients import MOST_CALLS
from gesso_operator.cluster.api import Api, ApiError, NoClusterError
from gesso_operator.cluster.events import EventSink
from gesso_operator.cluster.flags import Flags, UsageError, parse
from gesso_operator.cluster.guarded import GuardedApi, GuardedClients
from gesso_operator.cluster.leading import Leadership
from gesso_operator.cluster.manager import Manager
from gesso_operator.cluster.metrics import registry
from gesso_operator.cluster.names import API_VERSION, Key
from gesso_operator.cluster.objects import Defaults
from gesso_operator.cluster.runner import Tools
from gesso_operator.cluster.status_writer import StatusWriter
from gesso_operator.cluster.sweep import Sweep
from gesso_operator.cluster.watch import Watches
from gesso_operator.cluster.web import Web
from gesso_operator.cluster.world import World
from gesso_operator.logs import Log

_MONITORING = "monitoring.coreos.com/v1"
#: Between two looks for the CRD.
_CRD_SECONDS = 1.0


async def serve(flags: Flags, log: Log) -> int:
    """Runs until a signal; gives the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    plain = Api()
    try:
        await plain.connect()
    except NoClusterError as error:
        raise UsageError(f"no cluster: {error}") from None
    lease = Key(flags.lease_namespace, flags.lease_name)
    leadership = Leadership(plain, lease, flags.pod, log, lambda: manager.wake())
    api = GuardedApi(plain, lambda: leadership.held)
    world, slots = World(), asyncio.Semaphore(MOST_CALLS)
    tools = Tools(
        api=api,
        world=world,
        clients=lambda tls: GuardedClients(lambda: leadership.held, slots, tls),
        writer=StatusWriter(api, log),
        events=EventSink(api, flags.pod, log),
        defaults=Defaults(
            flags.router_image,
            flags.worker_image,
            flags.pod_defaults.get("router", {}),
            flags.pod_defaults.get("worker", {}),
            await _serves(plain, _MONITORING),
        ),
        log=log,
        leads=lambda: leadership.held,
        # One thread for all: the solver keeps threads and memory of its own for each that calls it.
        planner=ThreadPoolExecutor(1, "planner"),
        tls_folder=flags.tls_dir,
    )
    manager = Manager(tools)
    watches = Watches(world, flags.namespaces)

    def alive() -> str:
        if watches.ended.done():
            return "the watches have ended"
        frozen = manager.frozen()
        return f"no round for too long: {', '.join(frozen)}" if frozen else ""

    web = Web(alive, lambda: "" if watches.open else "the watches are not open", registry(manager))
    try:
        port = await web.start(flags.host, flags.port)
    except OSError as error:
        raise UsageError(f"--http: port {flags.port}: {error.strerror or error}") from None
    log.info("up", pod=flags.pod, http_port=port, namespaces=",".join(flags.namespaces) or "all")
    opening = asyncio.create_task(_open(watches, api, log), name="open")
    sweep = Sweep(plain, world, flags.namespaces, log)
    sweeping = asyncio.create_task(sweep.run(), name="sweep")
    leading = asyncio.create_task(leadership.run(stop), name="lease")
    stopping = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait((watches.ended, leading, stopping), return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if not stopping.done():
        code = 1
        for what, ended in (("watches", watches.ended), ("lease", leading)):
            if ended.done():
                log.error("failed", detail=f"{what} ended: {ended.exception()!r}")
        stop.set()
    opening.cancel()
    sweeping.cancel()
    await manager.stop()
    await asyncio.wait({leading}, timeout=10.0)
    await watches.stop()
    await web.stop()
    await plain.close()
    log.info("down")
    return code


async def _open(watches: Watches, api: Api, log: Log) -> None:
    """Begins to watch once the CRD is there: kopf looks for it once, so that it need not see all CRDs."""
    told = False
    while not await _serves(api, API_VERSION):
        if not told:
            log.warning("no_crd", detail=f"the API server does not serve {API_VERSION} yet")
            told = True
        await asyncio.sleep(_CRD_SECONDS)
    watches.start()


async def _serves(api: Api, group_version: str) -> bool:
    try:
        return await api.serves(group_version)
    except ApiError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the operator; gives the exit code."""
    # kopf asks for the user's name, which a container may not have.
    os.environ.setdefault("USER", "gesso")
    try:
        flags = parse(sys.argv[1:] if arguments is None else arguments)
        logs.set_up("operator", flags.log_format)
        log = Log("operator", form=flags.log_format)
        gc.freeze()
        return asyncio.run(serve(flags, log))
    except UsageError as error:
        print(f"gesso operator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
