"""What a spec must hold across its fields, in CEL, for the API server to refuse with a sentence.

The typed model refuses the same, with the same meaning; a test sends every bad spec through both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A rule at an object of the spec: `at` is its path, items of a list written as `[]`.

    `message` is a sentence; `expression` gives one with the values in it, where these are strings of bounded
    length: numbers in a message cost more than the API server allows.
    `field` is the field that is at fault, below `at`.
    """

    at: str
    rule: str
    message: str
    expression: str = ""
    field: str = ""

    def as_schema(self) -> dict[str, Any]:
        """As an item of x-kubernetes-validations."""
        found = {"rule": self.rule, "message": self.message}
        if self.expression:
            found["messageExpression"] = self.expression
        if self.field:
            found["fieldPath"] = self.field
        return found


RULES = (
    Rule(
        "spec.model",
        "self.source == oldSelf.source || self.allowReplace",
        "the model cannot be replaced unless allowReplace is true",
        "'the model cannot be replaced (' + oldSelf.source + ' to ' + self.source + ') unless allowReplace "
        "is true: every latent in the caches would be of no use'",
        ".source",
    ),
    Rule(
        "spec.model",
        "!self.source.startsWith('pvc://') || "
        "self.source.matches('^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(/.*)?$')",
        "pvc://CLAIM or pvc://CLAIM/FOLDER is allowed, the claim's name in lower case",
        field=".source",
    ),
    Rule(
        "spec.variants[].skippedSteps",
        "self[0] == 0",
        "the first level is 0 (full generation)",
    ),
    Rule(
        "spec.variants[].skippedSteps",
        "self.isSorted() && self.all(x, self.exists_one(y, x == y))",
        "the levels are ascending, each once",
    ),
    Rule(
        "spec",
        "self.variants.all(v, v.skippedSteps.all(k, k < self.model.steps))",
        "each level of skippedSteps is less than model.steps",
        field=".variants",
    ),
    Rule(
        "spec",
        "self.slo.latencySeconds >= 0.001 * double(self.model.steps - "
        "self.variants[0].skippedSteps[size(self.variants[0].skippedSteps) - 1])",
        "the deadline is below the fastest possible image: at least a millisecond for each denoising step that "
        "the largest level leaves",
        field=".slo.latencySeconds",
    ),
    Rule(
        "spec.workers",
        "self.min <= self.max",
        "max is at least min",
        field=".max",
    ),
    Rule(
        "spec.workers",
        "!has(self.replicas) || self.replicas <= self.max",
        "replicas is at most max",
        field=".replicas",
    ),
)
