"""The DiffusionService as typed Python: read it with `load_service`, a bad one raises `SpecError`."""

from gesso.api.base import API_VERSION, KIND
from gesso.api.fleet import RouterSpec, WorkersSpec
from gesso.api.loading import Fault, SpecError, load_service, parse_service, service_of
from gesso.api.model import ModelSpec, OtherModelSpec, VariantSpec
from gesso.api.service import (
    CacheSpec,
    DiffusionService,
    DiskSpec,
    Metadata,
    SchedulingSpec,
    ServiceSpec,
    SloSpec,
)
from gesso.api.status import (
    PLAN_HISTORY,
    READY_PARTS,
    Condition,
    ConditionStatus,
    ConditionType,
    PlanStatus,
    ServiceStatus,
    SloStatus,
    WorkersStatus,
    WorkerStatus,
    transition,
)

__all__ = [
    "API_VERSION",
    "KIND",
    "PLAN_HISTORY",
    "READY_PARTS",
    "CacheSpec",
    "DiskSpec",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "DiffusionService",
    "Fault",
    "Metadata",
    "ModelSpec",
    "OtherModelSpec",
    "PlanStatus",
    "RouterSpec",
    "SchedulingSpec",
    "ServiceSpec",
    "ServiceStatus",
    "SloSpec",
    "SloStatus",
    "SpecError",
    "VariantSpec",
    "WorkerStatus",
    "WorkersSpec",
    "WorkersStatus",
    "load_service",
    "parse_service",
    "service_of",
    "transition",
]
