from gesso.rpc.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LatentSource(_message.Message):
    __slots__ = ("entry_id", "worker", "address")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    worker: str
    address: str
    def __init__(self, entry_id: _Optional[str] = ..., worker: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class WorkerGenerateRequest(_message.Message):
    __slots__ = ("request_id", "prompt", "negative_prompt", "width", "height", "seed", "guidance_scale", "skipped_steps", "source", "format", "tenant", "embedding", "keep_latents", "model", "fallbacks", "scheduler", "images", "progress_steps", "preview_steps")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    KEEP_LATENTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_STEPS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_STEPS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    guidance_scale: float
    skipped_steps: int
    source: LatentSource
    format: _image_pb2.ImageFormat
    tenant: str
    embedding: bytes
    keep_latents: bool
    model: str
    fallbacks: _containers.RepeatedCompositeFieldContainer[LatentSource]
    scheduler: str
    images: int
    progress_steps: int
    preview_steps: int
    def __init__(self, request_id: _Optional[str] = ..., prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., seed: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., skipped_steps: _Optional[int] = ..., source: _Optional[_Union[LatentSource, _Mapping]] = ..., format: _Optional[_Union[_image_pb2.ImageFormat, str]] = ..., tenant: _Optional[str] = ..., embedding: _Optional[bytes] = ..., keep_latents: _Optional[bool] = ..., model: _Optional[str] = ..., fallbacks: _Optional[_Iterable[_Union[LatentSource, _Mapping]]] = ..., scheduler: _Optional[str] = ..., images: _Optional[int] = ..., progress_steps: _Optional[int] = ..., preview_steps: _Optional[int] = ...) -> None: ...

class WorkerImage(_message.Message):
    __slots__ = ("data", "format", "width", "height", "skipped_steps", "queue_seconds", "encode_seconds", "fetch_seconds", "denoise_seconds", "decode_seconds", "seed", "source")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FETCH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: _image_pb2.ImageFormat
    width: int
    height: int
    skipped_steps: int
    queue_seconds: float
    encode_seconds: float
    fetch_seconds: float
    denoise_seconds: float
    decode_seconds: float
    seed: int
    source: LatentSource
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[_image_pb2.ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., skipped_steps: _Optional[int] = ..., queue_seconds: _Optional[float] = ..., encode_seconds: _Optional[float] = ..., fetch_seconds: _Optional[float] = ..., denoise_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., seed: _Optional[int] = ..., source: _Optional[_Union[LatentSource, _Mapping]] = ...) -> None: ...

class WorkerEvent(_message.Message):
    __slots__ = ("started", "progress", "image", "image_index")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    started: _image_pb2.Started
    progress: _image_pb2.Progress
    image: WorkerImage
    image_index: int
    def __init__(self, started: _Optional[_Union[_image_pb2.Started, _Mapping]] = ..., progress: _Optional[_Union[_image_pb2.Progress, _Mapping]] = ..., image: _Optional[_Union[WorkerImage, _Mapping]] = ..., image_index: _Optional[int] = ...) -> None: ...

class AssignRequest(_message.Message):
    __slots__ = ("skipped_steps", "revision", "model")
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    skipped_steps: int
    revision: int
    model: str
    def __init__(self, skipped_steps: _Optional[int] = ..., revision: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class AssignResponse(_message.Message):
    __slots__ = ("skipped_steps", "switch_seconds", "model", "loading_model")
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SWITCH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOADING_MODEL_FIELD_NUMBER: _ClassVar[int]
    skipped_steps: int
    switch_seconds: float
    model: str
    loading_model: str
    def __init__(self, skipped_steps: _Optional[int] = ..., switch_seconds: _Optional[float] = ..., model: _Optional[str] = ..., loading_model: _Optional[str] = ...) -> None: ...

class LookupQuery(_message.Message):
    __slots__ = ("tenant", "embedding", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    embedding: bytes
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., embedding: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("entry_id", "similarity", "held_levels", "embedding", "worker")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    HELD_LEVELS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    similarity: float
    held_levels: _containers.RepeatedScalarFieldContainer[int]
    embedding: bytes
    worker: str
    def __init__(self, entry_id: _Optional[str] = ..., similarity: _Optional[float] = ..., held_levels: _Optional[_Iterable[int]] = ..., embedding: _Optional[bytes] = ..., worker: _Optional[str] = ...) -> None: ...

class Matches(_message.Message):
    __slots__ = ("matches",)
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    def __init__(self, matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("queries",)
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[LookupQuery]
    def __init__(self, queries: _Optional[_Iterable[_Union[LookupQuery, _Mapping]]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Matches]
    def __init__(self, answers: _Optional[_Iterable[_Union[Matches, _Mapping]]] = ...) -> None: ...

class FetchLatentsRequest(_message.Message):
    __slots__ = ("tenant", "entry_id", "skipped_steps")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    entry_id: str
    skipped_steps: int
    def __init__(self, tenant: _Optional[str] = ..., entry_id: _Optional[str] = ..., skipped_steps: _Optional[int] = ...) -> None: ...

class FetchLatentsResponse(_message.Message):
    __slots__ = ("skipped_steps", "shape", "dtype", "data", "fingerprint")
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    skipped_steps: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    data: bytes
    fingerprint: str
    def __init__(self, skipped_steps: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., data: _Optional[bytes] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeviceProfile(_message.Message):
    __slots__ = ("device", "steps", "encode_seconds", "decode_seconds", "step_seconds")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    device: str
    steps: int
    encode_seconds: float
    decode_seconds: float
    step_seconds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, device: _Optional[str] = ..., steps: _Optional[int] = ..., encode_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., step_seconds: _Optional[_Iterable[float]] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ("to", "drain_seconds", "load_seconds", "warmup_seconds", "kept")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    to: str
    drain_seconds: float
    load_seconds: float
    warmup_seconds: float
    kept: bool
    def __init__(self, to: _Optional[str] = ..., drain_seconds: _Optional[float] = ..., load_seconds: _Optional[float] = ..., warmup_seconds: _Optional[float] = ..., kept: _Optional[bool] = ..., **kwargs) -> None: ...

class RequestProgress(_message.Message):
    __slots__ = ("request_id", "remaining_steps")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REMAINING_STEPS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    remaining_steps: int
    def __init__(self, request_id: _Optional[str] = ..., remaining_steps: _Optional[int] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("worker", "ready", "draining", "assigned_skipped_steps", "assigned_revision", "profile", "active", "queued", "cache_entries", "cache_bytes", "cache_capacity_bytes", "images_done", "fingerprint", "model", "loading_model", "switch_error", "last_switch", "cache_disk_bytes", "cache_disk_capacity_bytes", "cache_disk_corrupt", "cache_disk_unwritten", "cache_disk_failed", "placement", "unannounced", "out_of_memory", "batch_limit", "swaps", "kept_models", "model_bytes", "model_capacity_bytes", "stalled")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_REVISION_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    CACHE_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_DONE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOADING_MODEL_FIELD_NUMBER: _ClassVar[int]
    SWITCH_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_SWITCH_FIELD_NUMBER: _ClassVar[int]
    CACHE_DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_DISK_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_DISK_CORRUPT_FIELD_NUMBER: _ClassVar[int]
    CACHE_DISK_UNWRITTEN_FIELD_NUMBER: _ClassVar[int]
    CACHE_DISK_FAILED_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    UNANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    BATCH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SWAPS_FIELD_NUMBER: _ClassVar[int]
    KEPT_MODELS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STALLED_FIELD_NUMBER: _ClassVar[int]
    worker: str
    ready: bool
    draining: bool
    assigned_skipped_steps: int
    assigned_revision: int
    profile: DeviceProfile
    active: _containers.RepeatedCompositeFieldContainer[RequestProgress]
    queued: _containers.RepeatedCompositeFieldContainer[RequestProgress]
    cache_entries: int
    cache_bytes: int
    cache_capacity_bytes: int
    images_done: int
    fingerprint: str
    model: str
    loading_model: str
    switch_error: str
    last_switch: Switch
    cache_disk_bytes: int
    cache_disk_capacity_bytes: int
    cache_disk_corrupt: int
    cache_disk_unwritten: int
    cache_disk_failed: int
    placement: str
    unannounced: int
    out_of_memory: int
    batch_limit: int
    swaps: int
    kept_models: _containers.RepeatedScalarFieldContainer[str]
    model_bytes: int
    model_capacity_bytes: int
    stalled: bool
    def __init__(self, worker: _Optional[str] = ..., ready: _Optional[bool] = ..., draining: _Optional[bool] = ..., assigned_skipped_steps: _Optional[int] = ..., assigned_revision: _Optional[int] = ..., profile: _Optional[_Union[DeviceProfile, _Mapping]] = ..., active: _Optional[_Iterable[_Union[RequestProgress, _Mapping]]] = ..., queued: _Optional[_Iterable[_Union[RequestProgress, _Mapping]]] = ..., cache_entries: _Optional[int] = ..., cache_bytes: _Optional[int] = ..., cache_capacity_bytes: _Optional[int] = ..., images_done: _Optional[int] = ..., fingerprint: _Optional[str] = ..., model: _Optional[str] = ..., loading_model: _Optional[str] = ..., switch_error: _Optional[str] = ..., last_switch: _Optional[_Union[Switch, _Mapping]] = ..., cache_disk_bytes: _Optional[int] = ..., cache_disk_capacity_bytes: _Optional[int] = ..., cache_disk_corrupt: _Optional[int] = ..., cache_disk_unwritten: _Optional[int] = ..., cache_disk_failed: _Optional[int] = ..., placement: _Optional[str] = ..., unannounced: _Optional[int] = ..., out_of_memory: _Optional[int] = ..., batch_limit: _Optional[int] = ..., swaps: _Optional[int] = ..., kept_models: _Optional[_Iterable[str]] = ..., model_bytes: _Optional[int] = ..., model_capacity_bytes: _Optional[int] = ..., stalled: _Optional[bool] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("name", "address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("targets", "timeout_seconds")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[Peer]
    timeout_seconds: float
    def __init__(self, targets: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class HandOverResponse(_message.Message):
    __slots__ = ("entries", "bytes", "skipped")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    entries: int
    bytes: int
    skipped: int
    def __init__(self, entries: _Optional[int] = ..., bytes: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...

class HeldLevel(_message.Message):
    __slots__ = ("skipped_steps", "shape", "dtype", "data", "hits", "origin")
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    skipped_steps: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    data: bytes
    hits: int
    origin: str
    def __init__(self, skipped_steps: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., data: _Optional[bytes] = ..., hits: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class CacheEntry(_message.Message):
    __slots__ = ("tenant", "embedding", "levels")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    embedding: bytes
    levels: _containers.RepeatedCompositeFieldContainer[HeldLevel]
    def __init__(self, tenant: _Optional[str] = ..., embedding: _Optional[bytes] = ..., levels: _Optional[_Iterable[_Union[HeldLevel, _Mapping]]] = ...) -> None: ...

class StoreEntriesRequest(_message.Message):
    __slots__ = ("fingerprint", "entries")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    entries: _containers.RepeatedCompositeFieldContainer[CacheEntry]
    def __init__(self, fingerprint: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[CacheEntry, _Mapping]]] = ...) -> None: ...

class StoreEntriesResponse(_message.Message):
    __slots__ = ("stored", "free_bytes")
    STORED_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    stored: _containers.RepeatedScalarFieldContainer[bool]
    free_bytes: int
    def __init__(self, stored: _Optional[_Iterable[bool]] = ..., free_bytes: _Optional[int] = ...) -> None: ...

class WithdrawRequest(_message.Message):
    __slots__ = ("request_ids",)
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    request_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class WithdrawResponse(_message.Message):
    __slots__ = ("latents",)
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    latents: int
    def __init__(self, latents: _Optional[int] = ...) -> None: ...

class PlaceRequest(_message.Message):
    __slots__ = ("workers", "codebook", "revision")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Peer]
    codebook: bytes
    revision: int
    def __init__(self, workers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., codebook: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class PlaceResponse(_message.Message):
    __slots__ = ("placement",)
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    placement: str
    def __init__(self, placement: _Optional[str] = ...) -> None: ...

class Signpost(_message.Message):
    __slots__ = ("tenant", "entry_id", "embedding", "held_levels")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    HELD_LEVELS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    entry_id: str
    embedding: bytes
    held_levels: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tenant: _Optional[str] = ..., entry_id: _Optional[str] = ..., embedding: _Optional[bytes] = ..., held_levels: _Optional[_Iterable[int]] = ...) -> None: ...

class AnnounceRequest(_message.Message):
    __slots__ = ("worker", "fingerprint", "placement", "signposts")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNPOSTS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    fingerprint: str
    placement: str
    signposts: _containers.RepeatedCompositeFieldContainer[Signpost]
    def __init__(self, worker: _Optional[str] = ..., fingerprint: _Optional[str] = ..., placement: _Optional[str] = ..., signposts: _Optional[_Iterable[_Union[Signpost, _Mapping]]] = ...) -> None: ...

class AnnounceResponse(_message.Message):
    __slots__ = ("life",)
    LIFE_FIELD_NUMBER: _ClassVar[int]
    life: str
    def __init__(self, life: _Optional[str] = ...) -> None: ...
