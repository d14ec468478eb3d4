"""A stream of the device for each stage, so that on a GPU encoding and decoding do not wait in line with steps.

A tensor goes from one stage to the next only after its stream has been waited for: whoever gets it may use it,
and may free it, without looking at streams.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

_URGENT, _PATIENT = -1, 0


def stage_stream(device: torch.device, urgent: bool) -> AbstractContextManager[object]:
    """What a stage's thread runs in: a stream of its own on a GPU, nothing on a CPU."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    make: Any = torch.cuda.Stream
    stream = make(device, priority=_URGENT if urgent else _PATIENT)
    context: AbstractContextManager[object] = torch.cuda.stream(stream)
    return context


def finish(device: torch.device) -> None:
    """Waits for what this thread's stream was given."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
