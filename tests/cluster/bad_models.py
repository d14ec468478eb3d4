"""What cannot be served: models, ladders and variants that are refused."""

from __future__ import annotations

from cluster.spec_cases import ABSENT, LADDER, LIGHT, Bad, both, bound

_CLAIM = "pvc://CLAIM or pvc://CLAIM/FOLDER, the claim's name in lower case"
_ONE_OF_TWO = "a variant has either skippedSteps (levels of spec.model) or model (another model)"
_FIRST = "the first variant is the ladder of spec.model (skippedSteps), each further one another model (model)"
_LABEL = "a DNS label: a-z, 0-9 and -, at most 63 characters"
_QUANTITY = "a quantity such as 500m, 2 or 1.5Gi; with a fraction, in quotes"
_LEVELS = "0 or more and less than spec.model.steps (20)"

BAD_MODELS = (
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
    Bad(
        "other model with guidance beyond reason",
        {"spec.variants": [LADDER, {"name": "m", "model": LIGHT["model"] | {"guidanceScale": 51}}]},
        "spec.variants[1].model.guidanceScale: 51 is not allowed: at most 50",
        "spec.variants[1].model.guidanceScale in body should be less than or equal to 50",
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
)
