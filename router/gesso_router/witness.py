"""Who is told of every image that goes out: the console, the metrics."""

from __future__ import annotations

from typing import Protocol

from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.run import Placement, Run


class Witness(Protocol):
    """Is told at once and in line: it must be quick, and must not fail."""

    def served(
        self,
        run: Run,
        placement: Placement,
        made: worker_pb2.WorkerImage,
        image: image_pb2.Image,
    ) -> None:
        """`made` is what the worker sent, `image` what the client gets."""
