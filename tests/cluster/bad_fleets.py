"""How it cannot be served: SLOs, fleets, caches and names that are refused."""

from __future__ import annotations

from cluster.spec_cases import ABSENT, Bad, both, bound

from gesso.api.pods import OWN_KEYS_ALLOWED
from gesso.api.quantity import ALLOWED

_NAME = "a DNS label that begins with a letter: a-z, 0-9 and -, at most 45 characters"
_QUANTITY = "a quantity such as 500m, 2 or 1.5Gi; with a fraction, in quotes"
_LIMITS = "spec.workers.resources.limits"
_LONG = "a" * 46

BAD_FLEETS = (
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
        "more resources than are counted",
        {_LIMITS: {f"example.com/r{i}": 1 for i in range(9)}},
        "is not allowed: at most 8 of them",
        "spec.workers.resources.limits: Too many: 9: must have at most 8 items",
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
    *(
        both(f"disk of {size}", "spec.cache.disk", {"size": size}, ALLOWED, size)
        for size in ("128Mo", "0", "1025Pi")
    ),
    both(
        "TLS without files",
        "spec.security.tls",
        {"mutual": True},
        "secretName, or directory for a fleet on one machine, is needed",
        "neither",
    ),
    both(
        "keys without a file",
        "spec.security.keys",
        {"key": "keys.yaml"},
        "secretName, or file for a fleet on one machine, is needed",
        "neither",
    ),
    both(
        "keys in a folder of the Secret",
        "spec.security.keys",
        {"secretName": "clients", "key": "a/b"},
        "the name of a key in the Secret, without /",
        "a/b",
    ),
    *(
        both(
            f"traces to {endpoint}",
            "spec.tracing",
            {"endpoint": endpoint},
            "http://HOST:PORT or https://HOST:PORT, without path, user or password",
            endpoint,
        )
        for endpoint in (
            "otel:4317",
            "grpc://otel:4317",
            "http://otel",
            "http://me:secret@otel:4317",
            "http://otel:4317/v1",
        )
    ),
    Bad(
        "traces to nowhere",
        {"spec.tracing": {"sampleRatio": 0.5}},
        "spec.tracing.endpoint: missing: required",
        "spec.tracing.endpoint: Required value",
    ),
    Bad(
        "more traces than requests",
        {"spec.tracing": {"endpoint": "http://otel:4317", "sampleRatio": 1.5}},
        "spec.tracing.sampleRatio: 1.5 is not allowed: at most 1",
        "spec.tracing.sampleRatio: Invalid value: 1.5: spec.tracing.sampleRatio in body should be less than",
    ),
    *(
        both(f"models in {size}", "spec.workers.modelMemory", size, ALLOWED)
        for size in ("16Go", "0", "1025Pi")
    ),
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
