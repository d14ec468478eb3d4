"""Every bound and wait of the router in one place, with what follows from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RouterSettings:
    """Defaults suit a fleet of 1 to a few dozen workers; times in seconds."""

    stats_interval: float = 0.25
    """Between two polls of a worker. Shorter: fresher queues, more load on the workers."""
    stats_timeout: float = 1.0
    """Deadline of a poll. A busy worker answers late; a hung one is given up after `stats_misses` of these."""
    stats_misses: int = 3
    """Polls missed in a row after which a worker counts as lost, and its requests go elsewhere."""
    lookup_share: float = 0.15
    """Share of a request's deadline that a look-up may take; shards that miss it count
    as having no match, which costs far more work than the wait: a busy worker answers late."""
    lookup_longest: float = 1.0
    """The most that a look-up may take, however late the deadline."""
    place_timeout: float = 2.0
    """Deadline for telling a worker who answers for what, and the pause after a failure."""
    withdraw_timeout: float = 5.0
    """Deadline for having a worker forget what a request left; its disk may be slow."""
    lookup_limit: int = 2
    """Entries asked of each shard: the nearest may lack the level that the next holds."""
    embed_timeout: float = 2.0
    """Deadline of an embedding; past it, or at once if too many wait to meet it, the prompt is served in full,
    uncached."""
    embed_batch: int = 16
    """Prompts embedded at once."""
    embed_cache: int = 4096
    """Embeddings remembered."""
    late_factor: float = 2.0
    """A request is given up at this multiple of its deadline, and freed on its worker."""
    drain_seconds: float = 9.0
    """Accepted requests have so long to finish after SIGTERM."""
    latency_window: float = 60.0
    """Span of the latency percentiles that Report gives."""
    latency_samples: int = 4096
    """Most latencies kept for them."""
    quality_memory: int = 4096
    """Images whose quality may still be reported: about 4 KiB each, with both embeddings."""
    quality_memory_seconds: float = 3600.0
    """How long after it went out an image's quality may be reported."""
    unread_bytes: int = 128 * 2**20
    """Images that gRPC clients have not read, all together; beyond it who has more than its part is refused."""
    unread_seconds: float = 60.0
    """For a gRPC client to read its events, before its image is given up."""
    connection_streams: int = 1024
    """Calls that a gRPC client may have open on one connection; more wait at the client."""
    connection_keepalive: float = 60.0
    """After so long without a word a gRPC client is asked whether it is there."""
    connection_keepalive_timeout: float = 20.0
    """For its answer: what it has not read goes with its connection."""
    connection_age: float = 1800.0
    """A gRPC client connects anew now and then, and its calls end on the old connection: those that it never
    reads have no other end."""
    no_worker_retry_after: float = 1.0
    """What a client is told to wait when no worker is ready."""
