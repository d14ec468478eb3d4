"""What models take of the device's memory: read off the files before they are loaded, counted afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch

#: A header is read whole; safetensors' own bound.
_LONGEST_HEADER: Final = 100_000_000
#: Share of the device's memory that weights may take where nothing else is said: the rest is for the work.
DEFAULT_SHARE: Final = 0.5
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
_PARTS: Final = ("unet", "vae", "text_encoder", "text_encoder_2")


def bytes_of_files(files: Iterable[Path], element_bytes: int) -> int:
    """What the tensors of safetensors files take once loaded, at so many bytes an element.

    Raises OSError or ValueError for a file that cannot be read.
    """
    return element_bytes * sum(_elements(file) for file in files)


def _elements(file: Path) -> int:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{file.name}: the header is {length} bytes long")
        header = json.loads(stream.read(length))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")


def bytes_of_pipeline(pipeline: Any) -> int:
    """What a loaded pipeline's weights take, each tensor counted once."""
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for part in _PARTS
        for tensor in (*getattr(pipeline, part).parameters(), *getattr(pipeline, part).buffers())
    }
    return sum(tensors.values())


def default_bound() -> int:
    """Bytes that models may take where the spec does not say: half of the GPU's memory, else the process's."""
    if torch.cuda.is_available():
        return int(DEFAULT_SHARE * torch.cuda.get_device_properties(0).total_memory)
    return int(DEFAULT_SHARE * _process_memory())


def _process_memory() -> int:
    """The container's limit, else the machine's memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal"))
    try:
        return min(machine, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no such group, or `max`
        return machine
