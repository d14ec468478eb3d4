"""Times of many calls, and what they sum up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def timed(calls: Sequence[Callable[[], T]]) -> tuple[list[T], dict[str, float]]:
    """Results of calls, and milliseconds by wall clock and by the calling thread's CPU time."""
    results, wall, cpu = [], [], []
    for call in calls:
        began, began_cpu = time.perf_counter(), time.thread_time()
        results.append(call())
        cpu.append(time.thread_time() - began_cpu)
        wall.append(time.perf_counter() - began)
    return results, {**percentiles(wall), "cpu_p99_ms": float(np.percentile(cpu, 99) * 1e3)}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return {"p50_ms": float(p50), "p99_ms": float(p99)}
