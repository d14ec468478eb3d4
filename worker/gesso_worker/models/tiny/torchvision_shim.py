"""Lets PyPI's torchvision be imported beside a CPU build of torch; does nothing where it imports anyway.

With a CPU build of torch, PyPI's torchvision fails at import because its compiled operators do not
load, and so do open_clip and diffusers, which import it. Declaring the schemas of the two operators
that it registers fake kernels for is enough. Import this module first.
"""

from __future__ import annotations

import importlib.util
from typing import Any

_SCHEMAS = (
    ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
)
#: Keeps the declarations alive: they go when their library object goes.
_kept: list[Any] = []


def install() -> bool:
    """Declare the missing operators; says whether that was needed."""
    if _kept or importlib.util.find_spec("torchvision") is None:
        return bool(_kept)
    import torch

    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError, OSError):
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    else:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    _kept.append(library)
    return True


install()
