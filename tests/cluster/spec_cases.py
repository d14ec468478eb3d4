"""DiffusionServices that typed model and API server accept, and ones that both refuse with a sentence."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from gesso.api.pods import OWN_KEYS_ALLOWED
from gesso.api.quantity import ALLOWED

Document = dict[str, Any]

BASE: Document = {
    "apiVersion": "gesso.dev/v1alpha1",
    "kind": "DiffusionService",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"source": "builtin://tiny-sdxl", "steps": 50},
        "variants": [{"name": "default", "skippedSteps": [0, 5, 10, 15, 20, 25]}],
        "slo": {"latencySeconds": 4},
        "workers": {"min": 1, "max": 4, "replicas": 2},
    },
}
LIGHT = {"name": "light", "model": {"source": "some/light", "steps": 4}}
LADDER = {"name": "default", "skippedSteps": [0, 5]}
#: In place of a value: the field is left out.
ABSENT = object()


def changed(changes: dict[str, Any]) -> Document:
    """`BASE` with values at paths such as `spec.model.steps`."""
    document = copy.deepcopy(BASE)
    for path, value in changes.items():
        *folders, last = path.split(".")
        at = document
        for folder in folders:
            at = at.setdefault(folder, {})
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return document


@dataclass(frozen=True)
class Bad:
    """A spec to be refused: `typed` is in what the typed model says, `server` in what the API server does."""

    name: str
    changes: dict[str, Any]
    typed: str
    server: str

    @property
    def document(self) -> Document:
        """The object."""
        return changed(self.changes)


def both(name: str, path: str, value: Any, told: str, shown: str | None = None) -> Bad:
    """One field at fault, of which both say the same: `shown is not allowed: told`."""
    text = f"{value if shown is None else shown} is not allowed: {told}"
    return Bad(name, {path: value}, text, text)


def bound(name: str, path: str, value: Any, typed: str, server: str) -> Bad:
    """One field out of the schema's own bounds, which the API server tells in its own words."""
    return Bad(name, {path: value}, f"{path}: {value} is not allowed: {typed}", f"{path}: {server}")


_CLAIM = "pvc://CLAIM or pvc://CLAIM/FOLDER, the claim's name in lower case"
_ONE_OF_TWO = "a variant has either skippedSteps (levels of spec.model) or model (another model)"
_FIRST = "the first variant is the ladder of spec.model (skippedSteps), each further one another model (model)"
_NAME = "a DNS label that begins with a letter: a-z, 0-9 and -, at most 45 characters"
_LABEL = "a DNS label: a-z, 0-9 and -, at most 63 characters"
_QUANTITY = "a quantity such as 500m, 2 or 1.5Gi; with a fraction, in quotes"
_LEVELS = "0 or more and less than spec.model.steps (20)"
_LIMITS = "spec.workers.resources.limits"
_LONG = "a" * 46

BAD = (
    # The ladder.
    Bad(
        "level not below steps",
        {"spec.variants": [{"name": "a", "skippedSteps": [0, 5, 50]}]},
        "spec.variants[0].skippedSteps[2]: 50 is not allowed: 0 or more and less than spec.model.steps (50)",
        "spec.variants: Invalid value: [0, 5, 50] is not allowed: each level is 0 or more and less than "
        "spec.model.steps (50)",
    ),
    Bad(
        "default ladder of a model with few steps",
        {"spec.model.steps": 20, "spec.variants": ABSENT},
        f"spec.variants[0].skippedSteps[4]: 20 is not allowed: {_LEVELS}",
        f"[0, 5, 10, 15, 20, 25] is not allowed: each level is {_LEVELS}",
    ),
    both(
        "ladder without 0",
        "spec.variants",
        [{"skippedSteps": [5, 10]}],
        "the first level is 0 (full generation)",
        "[5, 10]",
    ),
    both(
        "level twice",
        "spec.variants",
        [{"skippedSteps": [0, 5, 5]}],
        "ascending, each level once",
        "[0, 5, 5]",
    ),
    both(
        "levels not sorted",
        "spec.variants",
        [{"skippedSteps": [0, 10, 5]}],
        "ascending, each level once",
        "[0, 10, 5]",
    ),
    Bad(
        "empty ladder",
        {"spec.variants": [{"skippedSteps": []}]},
        "spec.variants[0].skippedSteps: [] is not allowed: at least 1 of them",
        "spec.variants[0].skippedSteps in body should have at least 1 items",
    ),
    Bad(
        "negative level",
        {"spec.variants": [{"skippedSteps": [0, -5]}]},
        "spec.variants[0].skippedSteps[1]: -5 is not allowed: at least 0",
        "spec.variants[0].skippedSteps[1] in body should be greater than or equal to 0",
    ),
    Bad(
        "more levels than a ladder may have",
        {"spec.variants": [{"skippedSteps": list(range(33))}]},
        "is not allowed: at most 32 of them",
        "spec.variants[0].skippedSteps: Too many: 33: must have at most 32 items",
    ),
    # Other models.
    Bad(
        "no variant",
        {"spec.variants": []},
        "spec.variants: [] is not allowed: at least 1 of them",
        "spec.variants in body should have at least 1 items",
    ),
    Bad(
        "variant of nothing",
        {"spec.variants": [{"name": "empty"}]},
        f'spec.variants[0]: {{"name": "empty"}} is not allowed: {_ONE_OF_TWO}',
        f"spec.variants[0]: Invalid value: empty is not allowed: {_ONE_OF_TWO}",
    ),
    Bad(
        "variant of two kinds",
        {"spec.variants": [LADDER | LIGHT]},
        f"is not allowed: {_ONE_OF_TWO}",
        f"spec.variants[0]: Invalid value: light is not allowed: {_ONE_OF_TWO}",
    ),
    Bad(
        "no ladder",
        {"spec.variants": [LIGHT]},
        f"spec.variants[0]: 'light' is not allowed: {_FIRST}",
        f'["light"] is not allowed: {_FIRST}',
    ),
    Bad(
        "two ladders",
        {"spec.variants": [LADDER, LADDER | {"name": "b"}]},
        f"spec.variants[1]: 'b' is not allowed: {_FIRST}",
        f'["default", "b"] is not allowed: {_FIRST}',
    ),
    Bad(
        "ladder not first",
        {"spec.variants": [LIGHT, LADDER]},
        f"spec.variants[0]: 'light' is not allowed: {_FIRST}",
        f'["light", "default"] is not allowed: {_FIRST}',
    ),
    Bad(
        "two variants of one name",
        {"spec.variants": [LADDER, LIGHT | {"name": "default"}]},
        "spec.variants[1].name: 'default' is not allowed: each variant has a name of its own",
        '["default", "default"] is not allowed: each variant has a name of its own',
    ),
    Bad(
        "more variants than there may be",
        {"spec.variants": [LADDER, *(LIGHT | {"name": f"m{i}"} for i in range(8))]},
        "is not allowed: at most 8 of them",
        "spec.variants: Too many: 9: must have at most 8 items",
    ),
    both(
        "variant in capitals",
        "spec.variants",
        [LADDER | {"name": "Default"}],
        _LABEL,
        "Default",
    ),
    Bad(
        "other model without steps",
        {"spec.variants": [LADDER, {"name": "m", "model": {"source": "x"}}]},
        "spec.variants[1].model.steps: missing: required",
        "spec.variants[1].model.steps: Required value",
    ),
    Bad(
        "other model worth nothing",
        {"spec.variants": [LADDER, {"name": "m", "model": LIGHT["model"] | {"quality": 0}}]},
        "spec.variants[1].model.quality: 0 is not allowed: above 0",
        "spec.variants[1].model.quality in body should be greater than 0",
    ),
    both(
        "other model of a claim in capitals",
        "spec.variants",
        [LADDER, {"name": "m", "model": {"source": "pvc://M", "steps": 4}}],
        _CLAIM,
        "pvc://M",
    ),
    # The model.
    both("claim in capitals", "spec.model.source", "pvc://Models/sdxl", _CLAIM),
    both("claim without a name", "spec.model.source", "pvc:///sdxl", _CLAIM),
    Bad(
        "no source",
        {"spec.model.source": ABSENT},
        "spec.model.source: missing: required",
        "spec.model.source: Required value",
    ),
    bound(
        "width not of 8",
        "spec.model.width",
        63,
        "a multiple of 8",
        "Invalid value: 63: spec.model.width in body should be a multiple of 8",
    ),
    Bad(
        "text for a number",
        {"spec.model.steps": "50"},
        "spec.model.steps: '50' is not allowed: a whole number",
        'spec.model.steps: Invalid value: "string": spec.model.steps in body must be of type integer',
    ),
    Bad(
        "broken steps",
        {"spec.model.steps": 50.5},
        "spec.model.steps: 50.5 is not allowed: a whole number",
        'spec.model.steps: Invalid value: "float64": spec.model.steps in body must be of type int64',
    ),
    Bad(
        "unknown scheduler",
        {"spec.model.scheduler": "Heun"},
        "spec.model.scheduler: 'Heun' is not allowed: one of Euler, DDIM",
        'spec.model.scheduler: Unsupported value: "Heun": supported values: "Euler", "DDIM"',
    ),
    Bad(
        "secret without a name",
        {"spec.model.tokenSecret": {"key": "token"}},
        "spec.model.tokenSecret.name: missing: required",
        "spec.model.tokenSecret.name: Required value",
    ),
    both("size that is none", "spec.model.storage", {"size": "big"}, _QUANTITY, "big"),
    # The SLO.
    bound(
        "deadline of zero",
        "spec.slo.latencySeconds",
        0,
        "above 0",
        "Invalid value: 0: spec.slo.latencySeconds in body should be greater than 0",
    ),
    bound(
        "deadline of a day",
        "spec.slo.latencySeconds",
        86400,
        "at most 3600",
        "Invalid value: 86400: spec.slo.latencySeconds in body should be less than or equal to 3600",
    ),
    Bad(
        "deadline below the fastest image",
        {"spec.slo.latencySeconds": 0.02},
        "spec.slo.latencySeconds: 0.02 is not allowed: at least 0.025, a millisecond for each of the 25 steps",
        "spec.slo.latencySeconds: Invalid value: 0.02 is not allowed: at least a millisecond for each step",
    ),
    Bad(
        "no SLO",
        {"spec.slo": ABSENT},
        "spec.slo: missing: required",
        "spec.slo: Required value",
    ),
    bound(
        "attainment of one",
        "spec.slo.attainment",
        1,
        "below 1",
        "Invalid value: 1: spec.slo.attainment in body should be less than 1",
    ),
    bound(
        "quality above one",
        "spec.slo.minRelativeQuality",
        1.5,
        "at most 1",
        "Invalid value: 1.5: spec.slo.minRelativeQuality in body should be less than or equal to 1",
    ),
    # The fleet.
    both("min above max", "spec.workers.min", 5, "at least spec.workers.min (5)", "4"),
    both("more than max", "spec.workers.replicas", 5, "at most spec.workers.max (4)"),
    bound(
        "fewer than none",
        "spec.workers.replicas",
        -1,
        "at least 0",
        "Invalid value: -1: spec.workers.replicas in body should be greater than or equal to 0",
    ),
    bound(
        "no workers",
        "spec.workers.min",
        0,
        "at least 1",
        "Invalid value: 0: spec.workers.min in body should be greater than or equal to 1",
    ),
    Bad(
        "no upper bound",
        {"spec.workers.max": ABSENT},
        "spec.workers.max: missing: required",
        "spec.workers.max: Required value",
    ),
    both("cores in words", _LIMITS, {"cpu": "many"}, _QUANTITY, "many"),
    Bad(
        "cores below none",
        {_LIMITS: {"cpu": -1}},
        f"'-1' is not allowed: {_QUANTITY}",
        f"-1 is not allowed: {_QUANTITY}",
    ),
    Bad(
        "cores in part",
        {_LIMITS: {"cpu": 1.5}},
        f"1.5 is not allowed: {_QUANTITY}",
        'cpu in body must be of type integer,string: "number"',
    ),
    Bad(
        "unknown operator",
        {"spec.workers.tolerations": [{"operator": "Maybe"}]},
        "spec.workers.tolerations[0].operator: 'Maybe' is not allowed: one of Exists, Equal",
        'spec.workers.tolerations[0].operator: Unsupported value: "Maybe"',
    ),
    Bad(
        "unknown pull policy",
        {"spec.workers.imagePullPolicy": "Sometimes"},
        "spec.workers.imagePullPolicy: 'Sometimes' is not allowed: one of Always, IfNotPresent, Never",
        'spec.workers.imagePullPolicy: Unsupported value: "Sometimes"',
    ),
    *(
        Bad(
            f"{part}: {key} in the template's {field}",
            {f"spec.{part}.podTemplate.metadata.{field}": {key: "x", "mine": "y"}},
            f'{{"{key}": "x", "mine": "y"}} is not allowed: {OWN_KEYS_ALLOWED}',
            f'["{key}"] is not allowed: {OWN_KEYS_ALLOWED}',
        )
        for part, field, key in (
            ("workers", "labels", "gesso.dev/service"),
            ("workers", "annotations", "gesso.dev/spec-hash"),
            ("router", "labels", "app.kubernetes.io/component"),
            ("router", "annotations", "gesso.dev/spec-hash"),
        )
    ),
    # The rest.
    Bad(
        "unknown policy",
        {"spec.scheduling.policy": "Greedy"},
        "spec.scheduling.policy: 'Greedy' is not allowed: one of QualityAware, PromptAgnostic",
        'spec.scheduling.policy: Unsupported value: "Greedy"',
    ),
    Bad(
        "mode that YAML reads as false",
        {"spec.scheduling.mode": False},
        "spec.scheduling.mode: false is not allowed: one of Auto, Recommend, Off (in quotes",
        "spec.scheduling.mode in body must be of type string",
    ),
    both("capacity in no unit", "spec.cache.capacity", "128Mo", ALLOWED),
    both("no capacity", "spec.cache.capacity", "0", ALLOWED),
    both("no capacity, as a number", "spec.cache.capacity", 0, ALLOWED),
    both("capacity beyond all disks", "spec.cache.capacity", "1025Pi", ALLOWED),
    both("name in capitals", "metadata.name", "Small_1", _NAME),
    both("name that begins with a figure", "metadata.name", "1small", _NAME),
    both("name too long for its pods", "metadata.name", _LONG, _NAME),
    Bad(
        "misspelt field",
        {"spec.router.maxQeue": 9},
        "spec.router.maxQeue: unknown field: did you mean maxQueue?",
        'unknown field "spec.router.maxQeue"',
    ),
)

#: Changes of `BASE` that nobody refuses.
GOOD: dict[str, dict[str, Any]] = {
    "as it is": {},
    "least that can be said": {
        "spec": {"model": {"source": "x"}, "slo": {"latencySeconds": 9}, "workers": {"max": 1}}
    },
    "one level": {"spec.variants": [{"name": "full", "skippedSteps": [0]}]},
    "other models": {"spec.variants": [LADDER, LIGHT, LIGHT | {"name": "lighter"}]},
    "other model makes the deadline": {
        "spec.variants": [LADDER, LIGHT],
        "spec.slo.latencySeconds": 0.01,
    },
    "model in a volume": {
        "spec.model.source": "pvc://models/sdxl/base",
        "spec.model.allowReplace": True,
        "spec.model.tokenSecret": {"name": "hub"},
        "spec.model.storage": {"size": "20Gi", "storageClassName": "fast"},
    },
    "stopped fleet": {"spec.workers.replicas": 0},
    "elastic fleet": {
        "spec.workers": {"max": 9, "costPerHour": 12.5, "startSeconds": 60},
        "spec.networkPolicy": True,
    },
    "capacity as a number": {"spec.cache.capacity": 1048576},
    "capacity with a fraction": {"spec.cache": {"capacity": "1.5Gi", "isolation": "Shared"}},
    "longest name": {"metadata.name": _LONG[:45]},
    "pods": {
        "spec.workers.image": "example.com/worker:1",
        "spec.workers.imagePullPolicy": "Never",
        "spec.workers.resources": {
            "requests": {
                "cpu": "500m",
                "memory": "1.5Gi",
                "a.b/c": "+1E",
                "a.b/d": ".5",
                "a.b/e": "1e3",
            },
            "limits": {"nvidia.com/gpu": 1, "cpu": "2.5"},
        },
        "spec.workers.nodeSelector": {"gpu": "yes"},
        "spec.workers.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "spec.workers.podTemplate": {
            "metadata": {"labels": {"team": "art"}, "annotations": {"example.com/a": "b"}},
            "spec": {
                "priorityClassName": "high",
                "containers": [{"name": "worker", "env": [{"name": "A", "value": "1"}]}],
            },
        },
        "spec.router.resources": {"requests": {"cpu": 1}},
        "spec.router.podTemplate": {"spec": {"hostNetwork": False, "anything": {"at": ["all"]}}},
    },
}
