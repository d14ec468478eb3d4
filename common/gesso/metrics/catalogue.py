"""The catalogue: names, kinds, meanings and labels of all metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]

#: Every label there is, and what bounds the number of its values.
LABELS: Mapping[str, str] = {
    "batch": "sizes of a batch: 1 to `spec.workers.maxBatch`",
    "namespace": "namespaces with a DiffusionService",
    "new_plan": "`true`, `false`",
    "outcome": "`served_in_slo`, `late`, `shed`, `failed`, `cancelled`, `invalid`",
    "phase": "`drain`, `load`, `warmup`",
    "policy": "the service's policy: one at a time, ten in all",
    "prompt_class": "classes of the service's predictor, a few dozen at most",
    "fault": "`corrupt`, `unwritten`, `failed`",
    "quantile": "`0.5`, `0.95`",
    "reason": "the planner's reasons, a fixed list",
    "service": "DiffusionServices",
    "skipped_steps": "levels of the service's ladder",
    "stage": "`embed`, `lookup`, `queue`, `encode`, `fetch`, `denoise`, `decode`, `total`",
    "state": "`active`, `queued`",
    "tier": "`memory`, `disk`",
    "worker": "workers of the plan in force",
}


@dataclass(frozen=True)
class Spec:
    """One metric. `name` is without what Prometheus adds to it: counters are exposed as `NAME_total`."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [label for label in self.labels if label not in LABELS]
        if unknown:
            raise ValueError(f"{self.name}: labels: {unknown} have no bound in LABELS")

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that a query may ask for."""
        match self.kind:
            case "counter":
                return (f"{self.name}_total",)
            case "histogram":
                return tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
            case "summary":
                return tuple(f"{self.name}_{end}" for end in ("sum", "count"))
        return (self.name,)


def _part(prefix: str, *rows: tuple[str, Kind, str, tuple[str, ...]]) -> tuple[Spec, ...]:
    return tuple(
        Spec(f"gesso_{prefix}_{name}", kind, says, labels) for name, kind, says, labels in rows
    )


ROUTER = _part(
    "router",
    ("offered_requests", "counter", "Well-formed requests that came in.", ()),
    ("requests", "counter", "Well-formed requests that ended, by outcome.", ("outcome",)),
    ("served", "counter", "Images that went out, in time or late, by K and policy.",
     ("outcome", "skipped_steps", "policy")),
    ("images", "counter", "Images served, by skipped steps K.", ("skipped_steps",)),
    ("prompts", "counter", "Prompts, by prompt class.", ("prompt_class",)),
    ("retries", "counter", "Requests sent to a second worker.", ()),
    ("unanswered_lookups", "counter", "Look-ups that a shard failed or did not answer in time.", ()),
    ("probed_shards", "counter", "Shards that look-ups have asked.", ()),
    ("cache_hits", "counter", "Images served with K > 0.", ()),
    ("worker_cache_entries", "gauge", "Entries of a worker's shard.", ("worker",)),
    ("worker_cache_bytes", "gauge", "Bytes of a worker's shard.", ("worker", "tier")),
    ("worker_cache_faults", "counter",
     "Files not as written (corrupt), entries in memory only (unwritten), writes that failed.",
     ("worker", "fault")),
    ("similarity", "histogram",
     "Cosine of a served prompt and the nearest cached one; those without one are in `gesso_router_unmatched`.",
     ()),
    ("unmatched", "counter", "Images whose prompt had no cached prompt near it.", ()),
    ("stage_seconds", "histogram",
     "Seconds of served images by stage; `queue` is the wait on the worker, `total` arrival to image.",
     ("stage",)),
    ("predicted_quality_sum", "counter", "Sum of predicted relative quality over served.", ()),
    ("quality_reports", "counter", "Images whose quality was reported, by K.", ("skipped_steps",)),
    # It falls where too little was predicted: no counter.
    ("quality_error_sum", "gauge", "Sum over reported images of predicted minus reported relative quality.",
     ("skipped_steps",)),
    ("quality_absolute_error_sum", "counter",
     "Sum over reported images of how far predicted and reported relative quality lie apart.",
     ("skipped_steps",)),
    ("latency_seconds", "gauge", "Latency of images served in the last minute, arrival to image.",
     ("quantile",)),
    ("open_requests", "gauge", "Accepted requests without an image yet.", ()),
    ("workers_ready", "gauge", "Workers that may be given requests.", ()),
    ("workers_known", "gauge", "Workers that the plan names.", ()),
    ("workers_lost", "counter",
     "Workers that stopped answering without having said that they go, each time.", ()),
    ("backlog_seconds", "gauge", "Worker-seconds of accepted work per ready worker.", ()),
    ("price", "gauge", "Relative quality per worker-second.", ()),
    ("plan_revision", "gauge", "Revision of the plan in force.", ()),
    ("plan_made_seconds", "gauge", "When the plan in force was made, unix seconds; 0 without one.", ()),
    ("min_relative_quality", "gauge", "The floor for predicted relative quality, by the service's spec.", ()),
    ("estimate_margin", "gauge",
     "Actual over estimated latency, 95th percentile; 99th where most are refused.", ()),
    ("worker_requests", "gauge", "Requests on a worker.", ("worker", "state")),
    ("worker_barred", "gauge", "1 while a worker is left alone, since requests on it failed again and again.",
     ("worker",)),
)  # fmt: skip

WORKER = _part(
    "worker",
    ("ready", "gauge", "1 where it takes requests.", ()),
    ("draining", "gauge", "1 after SIGTERM.", ()),
    ("assigned_skipped_steps", "gauge", "The K that it is assigned to.", ()),
    ("images", "counter", "Images made.", ()),
    ("requests", "gauge", "Accepted requests: in the denoising batch, and waiting for it.", ("state",)),
    ("step_seconds", "gauge", "Seconds of a denoising step by the size of the batch, as measured.", ("batch",)),
    ("encode_seconds", "gauge", "Seconds of encoding a prompt, as measured.", ()),
    ("decode_seconds", "gauge", "Seconds of decoding an image, as measured.", ()),
    ("batch_limit", "gauge", "Requests that the denoising batch may hold now.", ()),
    ("out_of_memory", "counter", "How often the denoising batch was halved for want of memory.", ()),
    ("swaps", "counter", "How often one in a full batch made room for one that could not wait.", ()),
    ("switch_seconds", "gauge", "Seconds of the last change of model, by phase; absent before it.",
     ("phase",)),
    ("switch_failed", "gauge", "1 where the last change of model failed.", ()),
    ("cache_entries", "gauge", "Entries in the shard.", ()),
    ("cache_bytes", "gauge", "Bytes that the shard takes.", ("tier",)),
    ("cache_capacity_bytes", "gauge", "Bytes that it may take.", ("tier",)),
    ("cache_corrupt", "counter", "Files of the tier on disk that were not as written, and dropped.", ()),
    ("cache_unwritten", "counter", "Entries kept in memory only, since the queue or the disk was full.", ()),
    ("cache_failed_writes", "counter", "Writes to the tier on disk that failed.", ()),
    ("cache_unannounced", "gauge", "Entries that those who answer for them do not know of yet.", ()),
)  # fmt: skip

_SERVICE = ("namespace", "service")
OPERATOR = _part(
    "operator",
    ("leading", "gauge", "1 where this operator may act.", ()),
    ("decisions", "counter", "Rounds of the control loop by reason; new_plan is whether a plan was made.",
     (*_SERVICE, "reason", "new_plan")),
    ("solve_seconds", "gauge", "Seconds that the last decision took.", _SERVICE),
    ("price", "gauge", "Relative quality that one more worker-second would buy.", _SERVICE),
    ("rate", "gauge", "Images per second that arrive, as planned for.", _SERVICE),
    ("objective", "gauge", "The planner's objective for the plan that it would make.",
     _SERVICE),
    ("objective_held", "gauge", "The same for the plan in force.", _SERVICE),
    ("planned_switches", "gauge", "Workers that change level or model by the last decision.", _SERVICE),
    ("plan_made_seconds", "gauge", "When the plan in force was made, unix seconds.", _SERVICE),
    ("data_fresh", "gauge", "1 where the last decision knew what it needs; 0: the plan is frozen.", _SERVICE),
    ("workers_wanted", "gauge", "Workers that are wanted.", _SERVICE),
    ("workers_ready", "gauge", "Workers that serve.", _SERVICE),
    ("attainment", "gauge", "Share served in time over the last minute.", _SERVICE),
    ("quality", "gauge", "Mean predicted relative quality over the last minute.", _SERVICE),
    ("round_seconds", "summary", "Rounds of a service's loop.", _SERVICE),
    ("status_writes", "counter", "Statuses written.", ()),
)  # fmt: skip

PARTS: Mapping[str, tuple[Spec, ...]] = {"Router": ROUTER, "Worker": WORKER, "Operator": OPERATOR}
CATALOGUE: Mapping[str, Spec] = {spec.name: spec for part in PARTS.values() for spec in part}
SAMPLES: Mapping[str, Spec] = {name: spec for spec in CATALOGUE.values() for name in spec.samples}
