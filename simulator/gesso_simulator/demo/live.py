"""What the demo shows under way: mix, load, latency, SLO, quality, cache hits and the last reasons."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gesso_simulator.demo.fleet import Watcher
from gesso_simulator.demo.play import Board, Ending, Outcome
from gesso_simulator.workloads.arrivals import RateShape

WINDOW_SECONDS = 15.0
#: Between two lines where the output is no terminal.
LINE_SECONDS = 10.0


class Display:
    """A table that is redrawn in place on a terminal, and a line every ten seconds elsewhere."""

    def __init__(self, console: Console, policy: str, offered: RateShape, capacity: float) -> None:
        self._console = console
        self._policy = policy
        self._offered = offered
        self._capacity = capacity
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last_line = -LINE_SECONDS
        self._rows: list[tuple[str, ...]] = []

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, start: float, board: Board, watcher: Watcher) -> None:
        """Shows the state of now; `start` is the monotonic time of second 0."""
        at_s = time.monotonic() - start
        figures = self._figures(at_s, board.outcomes, watcher)
        if self._live:
            self._live.update(self._table(figures, board, watcher), refresh=True)
        elif at_s - self._last_line >= LINE_SECONDS:
            self._last_line = at_s
            self._console.print(
                "  ".join(f"{k} {v}" for k, v in figures.items()), highlight=False, soft_wrap=True
            )

    def _figures(
        self, at_s: float, outcomes: Sequence[Outcome], watcher: Watcher
    ) -> dict[str, str]:
        recent = [o for o in outcomes if o.request.at_s + o.latency_s > at_s - WINDOW_SECONDS]
        served = [o for o in recent if o.served]
        rate = self._offered.rate(at_s)
        mix = watcher.samples[-1].mix if watcher.samples else ""
        return {
            "time": f"{min(at_s, self._offered.seconds):.0f}/{self._offered.seconds:.0f} s",
            "load": f"{rate:.1f}/s ({rate / self._capacity:.2f}x)",
            "mix (K:workers)": mix or "-",
            "mean K": _mean(served, lambda o: o.skipped_steps, "{:.1f}"),
            "latency p95": f"{np.percentile([o.latency_s for o in served], 95):.1f} s"
            if served
            else "-",
            "in SLO": _mean(recent, lambda o: 100.0 * (o.ending is Ending.IN_SLO), "{:.0f} %"),
            "quality": _mean(served, lambda o: 100.0 * o.predicted_quality, "{:.1f} %"),
            "cache hits": _mean(served, lambda o: 100.0 * (o.skipped_steps > 0), "{:.0f} %"),
        }

    def _table(self, figures: dict[str, str], board: Board, watcher: Watcher) -> Group:
        table = Table(title=f"{self._policy}, last {WINDOW_SECONDS:.0f} s", title_justify="left")
        for name in figures:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row(*figures.values())
        lines, before = [], ""
        for sample in reversed(watcher.samples):
            if sample.message and sample.message != before:
                lines.append(f"{sample.at_s:5.0f} s  {sample.reason}: {sample.message}")
                before = sample.message
            if len(lines) == 4:
                break
        lines += [f"        {restart}" for restart in watcher.restarts]
        sent = Text(f"sent {board.sent}, ended {len(board.outcomes)}", "dim")
        return Group(table, sent, *(Text(line, "dim") for line in lines))


def _mean(outcomes: Sequence[Outcome], value: Callable[[Outcome], float], text: str) -> str:
    return text.format(float(np.mean([value(o) for o in outcomes]))) if outcomes else "-"
