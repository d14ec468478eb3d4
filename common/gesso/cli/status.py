"""`gesso status`: one line of health, mix, SLO, quality and reason, from the status file of a local
service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from gesso.api import ServiceStatus, load_service
from gesso.api.local_state import LocalState, StateDir
from gesso.cli.console import CliError, say

_SLACK_SECONDS = 5.0


def show(place: StateDir, watch: bool, as_json: bool, every_s: float = 1.0) -> None:
    """Prints the status once, or each second until Ctrl-C. Raises CliError when the service is not ready."""
    if watch:
        _watch(place, as_json, every_s)
        return
    state, status = place.read_state(), place.read_status()
    if as_json:
        if status is None:
            raise CliError(f"{place.path} holds no status yet")
        say(status.model_dump_json(indent=2))
    line, healthy = describe(place, state, status, datetime.now(UTC))
    if not as_json:
        say(line)
    if not healthy:
        raise CliError("" if not as_json else line)


def describe(
    place: StateDir, state: LocalState | None, status: ServiceStatus | None, now: datetime
) -> tuple[str, bool]:
    """The line, and whether the service is up and ready."""
    if state is None:
        return f"{place.path.name}: nothing is up in {place.path}", False
    if not place.alive:
        if state.phase == "Failed":
            return f"{state.name}: Failed: {state.message}", False
        gone = f"supervisor (pid {state.pid}) is gone without having stopped"
        return f"{state.name}: Dead: {gone}; `gesso down` cleans up", False
    if status is None or state.phase in ("Starting", "Stopping"):
        return f"{state.name}: {state.phase}: {state.message}", False
    line, ready = status_line(state.name, status, _routers(state))
    age = (now - status.observed_at).total_seconds() if status.observed_at else None
    limit = 3 * _interval(place) + _SLACK_SECONDS
    if age is not None and age > limit:
        return f"{line} | STALE: last seen {age:.0f} s ago, the supervisor hangs", False
    return line, ready


def _routers(state: LocalState) -> str:
    """How many routers serve; empty where there is only one."""
    routers = state.routers
    if len(routers) < 2:
        return ""
    return f"{sum(r.serving for r in routers)}/{len(routers)} routers"


def status_line(name: str, status: ServiceStatus, routers: str = "") -> tuple[str, bool]:
    """The status in one line, and whether the service is ready; `routers` says how many serve, if told."""
    ready = status.condition("Ready")
    slo, quality, plan = (status.condition(k) for k in ("SLOMet", "QualityMet", "PlanReady"))
    is_ready = ready is not None and ready.status == "True"
    health = "Ready" if is_ready else f"NotReady ({ready.reason})" if ready else "Unknown"
    workers = f"{status.workers.ready}/{status.workers.desired} workers"
    mix = f"mix {status.mix or 'none'}"
    if status.desired_mix and status.desired_mix != status.mix:
        mix += f" (wanted {status.desired_mix})"
    parts = [f"{name}: {health}", workers, *([routers] if routers else []), mix]
    if status.slo.attainment is not None:
        missed = " MISSED" if slo and slo.status == "False" else ""
        p95 = status.slo.latency_p95_seconds
        tail = f", p95 {p95:.2f} s" if p95 is not None else ""
        parts.append(f"SLO {status.slo.attainment:.1%}{missed}{tail}")
    else:
        parts.append("SLO no requests")
    if status.quality is not None:
        low = " LOW" if quality and quality.status == "False" else ""
        parts.append(f"quality {status.quality:.3f}{low}")
    else:
        parts.append("quality no images")
    cause = ready if ready is not None and not is_ready else plan
    if cause is not None:
        parts.append(f"{cause.reason}: {cause.message}")
    return " | ".join(parts), is_ready


def follow(look: Callable[[], tuple[str, bool]], every_s: float = 1.0) -> None:
    """Keeps what `look` tells current on the terminal, until it says that there is no more, or Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    from gesso.cli.console import out

    with Live(console=out, refresh_per_second=4, transient=False) as live:
        try:
            more = True
            while more:
                text, more = look()
                live.update(Text(text))
                if more:
                    time.sleep(every_s)
        except KeyboardInterrupt:
            return


def _watch(place: StateDir, as_json: bool, every_s: float) -> None:
    def look() -> tuple[str, bool]:
        state, status = place.read_state(), place.read_status()
        if as_json:
            return status.model_dump_json(indent=2) if status else "{}", state is not None
        return describe(place, state, status, datetime.now(UTC))[0], state is not None

    follow(look, every_s)


def _interval(place: StateDir) -> float:
    try:
        return load_service(place.service_file).spec.scheduling.plan_interval_seconds
    except ValueError:
        return 10.0
