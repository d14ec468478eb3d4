"""Counts what is known of each image once it is out: seconds by stage, similarity, outcome and K."""

from __future__ import annotations

from collections import Counter

from gesso.metrics.families import Histogram
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.run import Placement, Run

_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 30.0, 60.0),
)
_SIMILARITIES = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.999)
STAGES = ("embed", "lookup", "queue", "encode", "fetch", "denoise", "decode", "total")


class Tallies:
    """A witness of images; see gesso_router.witness."""

    def __init__(self) -> None:
        self.stages = {stage: Histogram(_SECONDS) for stage in STAGES}
        self.similarity = Histogram(_SIMILARITIES)
        self.unmatched = 0
        #: Images by (outcome, K).
        self.images: Counter[tuple[str, int]] = Counter()

    def served(
        self,
        run: Run,
        placement: Placement,
        made: worker_pb2.WorkerImage,
        image: image_pb2.Image,
    ) -> None:
        """An image went out."""
        seconds = {
            "queue": made.queue_seconds,
            "encode": made.encode_seconds,
            "denoise": made.denoise_seconds,
            "decode": made.decode_seconds,
            "total": image.queue_seconds + image.generate_seconds,
        }
        if run.embedding is not None:
            seconds |= {"embed": run.embed_seconds, "lookup": run.lookup_seconds}
        if made.skipped_steps:
            seconds["fetch"] = made.fetch_seconds
        for stage, value in seconds.items():
            self.stages[stage].observe(value)
        if run.matches:
            self.similarity.observe(run.matches[0].similarity)
        else:
            self.unmatched += 1
        if run.ticket.outcome is not None:
            self.images[run.ticket.outcome.value, made.skipped_steps] += 1
