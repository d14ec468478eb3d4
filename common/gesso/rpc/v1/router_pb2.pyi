from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerEndpoint(_message.Message):
    __slots__ = ("name", "address", "assigned_skipped_steps")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    assigned_skipped_steps: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., assigned_skipped_steps: _Optional[int] = ...) -> None: ...

class LevelPlan(_message.Message):
    __slots__ = ("skipped_steps", "workers", "share", "model", "device")
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    skipped_steps: int
    workers: int
    share: float
    model: str
    device: str
    def __init__(self, skipped_steps: _Optional[int] = ..., workers: _Optional[int] = ..., share: _Optional[float] = ..., model: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class PricePoint(_message.Message):
    __slots__ = ("backlog_seconds", "price")
    BACKLOG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    backlog_seconds: float
    price: float
    def __init__(self, backlog_seconds: _Optional[float] = ..., price: _Optional[float] = ...) -> None: ...

class DeviceWorth(_message.Message):
    __slots__ = ("device", "worth")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORTH_FIELD_NUMBER: _ClassVar[int]
    device: str
    worth: float
    def __init__(self, device: _Optional[str] = ..., worth: _Optional[float] = ...) -> None: ...

class RouteRow(_message.Message):
    __slots__ = ("probability",)
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    probability: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, probability: _Optional[_Iterable[float]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("revision", "made_at", "levels", "price", "reason", "message", "price_curve", "device_worth", "route")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MADE_AT_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PRICE_CURVE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_WORTH_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    revision: int
    made_at: float
    levels: _containers.RepeatedCompositeFieldContainer[LevelPlan]
    price: float
    reason: str
    message: str
    price_curve: _containers.RepeatedCompositeFieldContainer[PricePoint]
    device_worth: _containers.RepeatedCompositeFieldContainer[DeviceWorth]
    route: _containers.RepeatedCompositeFieldContainer[RouteRow]
    def __init__(self, revision: _Optional[int] = ..., made_at: _Optional[float] = ..., levels: _Optional[_Iterable[_Union[LevelPlan, _Mapping]]] = ..., price: _Optional[float] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., price_curve: _Optional[_Iterable[_Union[PricePoint, _Mapping]]] = ..., device_worth: _Optional[_Iterable[_Union[DeviceWorth, _Mapping]]] = ..., route: _Optional[_Iterable[_Union[RouteRow, _Mapping]]] = ...) -> None: ...

class ServiceSettings(_message.Message):
    __slots__ = ("latency_seconds", "min_relative_quality", "max_queue")
    LATENCY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MIN_RELATIVE_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    latency_seconds: float
    min_relative_quality: float
    max_queue: int
    def __init__(self, latency_seconds: _Optional[float] = ..., min_relative_quality: _Optional[float] = ..., max_queue: _Optional[int] = ...) -> None: ...

class ApplyPlanRequest(_message.Message):
    __slots__ = ("plan", "workers", "settings")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    workers: _containers.RepeatedCompositeFieldContainer[WorkerEndpoint]
    settings: ServiceSettings
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ..., workers: _Optional[_Iterable[_Union[WorkerEndpoint, _Mapping]]] = ..., settings: _Optional[_Union[ServiceSettings, _Mapping]] = ...) -> None: ...

class ApplyPlanResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PromptClass(_message.Message):
    __slots__ = ("name", "arrivals", "quality")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    arrivals: int
    quality: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., arrivals: _Optional[int] = ..., quality: _Optional[_Iterable[float]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("at", "uptime_seconds", "offered", "served_in_slo", "late", "shed", "failed", "cancelled", "retried", "cache_hits", "predicted_quality_sum", "skipped_steps_sum", "skipped_steps", "served_by_level", "classes", "backlog_seconds", "latency_p50_seconds", "latency_p95_seconds", "plan_revision", "workers_ready", "queued", "optimal_by_level", "invalid")
    AT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OFFERED_FIELD_NUMBER: _ClassVar[int]
    SERVED_IN_SLO_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    SHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_QUALITY_SUM_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_STEPS_SUM_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P95_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PLAN_REVISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_READY_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    OPTIMAL_BY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    at: float
    uptime_seconds: float
    offered: int
    served_in_slo: int
    late: int
    shed: int
    failed: int
    cancelled: int
    retried: int
    cache_hits: int
    predicted_quality_sum: float
    skipped_steps_sum: float
    skipped_steps: _containers.RepeatedScalarFieldContainer[int]
    served_by_level: _containers.RepeatedScalarFieldContainer[int]
    classes: _containers.RepeatedCompositeFieldContainer[PromptClass]
    backlog_seconds: float
    latency_p50_seconds: float
    latency_p95_seconds: float
    plan_revision: int
    workers_ready: int
    queued: int
    optimal_by_level: _containers.RepeatedScalarFieldContainer[int]
    invalid: int
    def __init__(self, at: _Optional[float] = ..., uptime_seconds: _Optional[float] = ..., offered: _Optional[int] = ..., served_in_slo: _Optional[int] = ..., late: _Optional[int] = ..., shed: _Optional[int] = ..., failed: _Optional[int] = ..., cancelled: _Optional[int] = ..., retried: _Optional[int] = ..., cache_hits: _Optional[int] = ..., predicted_quality_sum: _Optional[float] = ..., skipped_steps_sum: _Optional[float] = ..., skipped_steps: _Optional[_Iterable[int]] = ..., served_by_level: _Optional[_Iterable[int]] = ..., classes: _Optional[_Iterable[_Union[PromptClass, _Mapping]]] = ..., backlog_seconds: _Optional[float] = ..., latency_p50_seconds: _Optional[float] = ..., latency_p95_seconds: _Optional[float] = ..., plan_revision: _Optional[int] = ..., workers_ready: _Optional[int] = ..., queued: _Optional[int] = ..., optimal_by_level: _Optional[_Iterable[int]] = ..., invalid: _Optional[int] = ...) -> None: ...

class ReportQualityRequest(_message.Message):
    __slots__ = ("request_id", "relative_quality")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_QUALITY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    relative_quality: float
    def __init__(self, request_id: _Optional[str] = ..., relative_quality: _Optional[float] = ...) -> None: ...

class ReportQualityResponse(_message.Message):
    __slots__ = ("predicted_quality", "learned")
    PREDICTED_QUALITY_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    predicted_quality: float
    learned: bool
    def __init__(self, predicted_quality: _Optional[float] = ..., learned: _Optional[bool] = ...) -> None: ...

class WithdrawImagesRequest(_message.Message):
    __slots__ = ("request_ids",)
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    request_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class WithdrawImagesResponse(_message.Message):
    __slots__ = ("latents", "unreached")
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    UNREACHED_FIELD_NUMBER: _ClassVar[int]
    latents: int
    unreached: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, latents: _Optional[int] = ..., unreached: _Optional[_Iterable[str]] = ...) -> None: ...
