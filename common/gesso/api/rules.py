"""What a spec must hold across its fields, in CEL, for the API server to refuse with a sentence.

The typed model refuses the same, with the same meaning; a test sends every bad spec through both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gesso.api.base import PATTERNS, QUANTITY, SERVICE_NAME
from gesso.api.model import PVC_PATTERN
from gesso.api.pods import OWN_KEYS, OWN_KEYS_ALLOWED, OWN_PREFIX
from gesso.api.quantity import ALLOWED, LARGEST_BYTES, PATTERN
from gesso.api.security import KEY_ALLOWED, KEYS_SOMEWHERE, TLS_SOMEWHERE
from gesso.api.service import LEAST_STEP_SECONDS


@dataclass(frozen=True)
class Rule:
    """A rule at a part of the object: `at` is its path, items of a list written as `[]`, values of a map as
    `{}`.

    `allowed` says what is, and `value` is a CEL expression of what is not. `known` are CEL expressions of what
    the sentence names: it has a ` (%s)` for each. `field` is the field at fault, below `at`.
    """

    at: str
    rule: str
    allowed: str
    value: str = "self"
    known: tuple[str, ...] = ()
    field: str = ""

    @property
    def path(self) -> str:
        """Of the field at fault. At the object itself that is its name: a rule sees no more of its metadata."""
        return f"{self.at}{self.field}" or "metadata.name"

    def as_schema(self) -> dict[str, Any]:
        """As an item of x-kubernetes-validations."""
        values = ", ".join((self.value, *self.known))
        found = {
            "rule": self.rule,
            "message": f"what is allowed: {self.sentence}",
            # `format` has a bounded cost; joining strings with numbers has none.
            "messageExpression": f"{cel_text(f'%s is not allowed: {self.allowed}')}.format([{values}])",
        }
        if self.field:
            found["fieldPath"] = self.field
        return found

    @property
    def sentence(self) -> str:
        """What is allowed, without values."""
        return self.allowed.replace(" (%s)", "")


def cel_text(text: str) -> str:
    """A string literal of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def pattern_rule(at: str, pattern: str) -> Rule:
    """A string that must match one of `base.PATTERNS`; a quantity may also be a whole number."""
    rule = f"self.matches({cel_text(pattern)})"
    if pattern == QUANTITY:
        # A pattern would cost too much: the API server bounds no string that might be a number.
        rule = "type(self) == int ? self >= 0 : isQuantity(self) && sign(quantity(self)) >= 0"
    return Rule(at, rule, PATTERNS[pattern])


_OWN = f"k.startsWith('{OWN_PREFIX}') || k in [{', '.join(map(cel_text, OWN_KEYS))}]"
#: Denoising steps of the fastest image that a variant can make.
_STEPS = (
    "(has(v.model) ? v.model.steps : self.model.steps - v.skippedSteps[size(v.skippedSteps) - 1])"
)

RULES = (
    Rule(
        "",
        f"self.metadata.name.matches({cel_text(SERVICE_NAME)})",
        PATTERNS[SERVICE_NAME],
        "self.metadata.name",
    ),
    Rule(
        "spec.model",
        "self.source == oldSelf.source || self.allowReplace",
        "the model stays as it is (%s) unless allowReplace is true: another can use no latent in the caches",
        "self.source",
        ("oldSelf.source",),
        field=".source",
    ),
    *(
        Rule(
            at,
            f"has(self.{volume}) == has(oldSelf.{volume}) && "
            f"(!has(self.{volume}) || self.{volume} == oldSelf.{volume})",
            "volumes are claimed when a service is made, and stay as they are (%s): make it anew for others",
            f"has(self.{volume}) ? string(self.{volume}.size) : 'none'",
            (f"has(oldSelf.{volume}) ? string(oldSelf.{volume}.size) : 'none'",),
            field=f".{volume}",
        )
        for at, volume in (("spec.model", "storage"), ("spec.cache", "disk"))
    ),
    *(
        Rule(
            at,
            f"!self.source.startsWith('pvc://') || self.source.matches({cel_text(PVC_PATTERN)})",
            "pvc://CLAIM or pvc://CLAIM/FOLDER, the claim's name in lower case",
            "self.source",
            field=".source",
        )
        for at in ("spec.model", "spec.variants[].model")
    ),
    Rule(
        "spec.variants[]",
        "has(self.skippedSteps) != has(self.model)",
        "a variant has either skippedSteps (levels of spec.model) or model (another model)",
        "self.name",
    ),
    Rule(
        "spec.variants[].skippedSteps",
        "size(self) > 0 && self[0] == 0",
        "the first level is 0 (full generation)",
    ),
    Rule(
        "spec.variants[].skippedSteps",
        "self.isSorted() && self.all(x, self.exists_one(y, x == y))",
        "ascending, each level once",
    ),
    Rule(
        "spec.variants",
        "self.all(v, self.exists_one(w, v.name == w.name))",
        "each variant has a name of its own",
        "self.map(v, v.name)",
    ),
    Rule(
        "spec.variants",
        "size(self) > 0 && has(self[0].skippedSteps) && size(self.filter(v, has(v.skippedSteps))) == 1",
        "the first variant is the ladder of spec.model (skippedSteps), each further one another model (model)",
        "self.map(v, v.name)",
    ),
    Rule(
        "spec",
        "self.variants.all(v, !has(v.skippedSteps) || v.skippedSteps.all(k, k < self.model.steps))",
        "each level is 0 or more and less than spec.model.steps (%s)",
        "self.variants[0].skippedSteps",
        ("self.model.steps",),
        field=".variants",
    ),
    Rule(
        "spec",
        "self.variants.exists(v, !has(v.model) && !has(v.skippedSteps) || "
        f"self.slo.latencySeconds >= {LEAST_STEP_SECONDS} * double({_STEPS}))",
        "at least a millisecond for each step that the fastest possible image takes",
        "self.slo.latencySeconds",
        field=".slo.latencySeconds",
    ),
    Rule(
        "spec.workers",
        "self.min <= self.max",
        "at least spec.workers.min (%s)",
        "self.max",
        ("self.min",),
        field=".max",
    ),
    Rule(
        "spec.workers",
        "!has(self.replicas) || self.replicas <= self.max",
        "at most spec.workers.max (%s)",
        "self.replicas",
        ("self.max",),
        field=".replicas",
    ),
    *(
        Rule(
            at,
            f"type(self) == int ? self > 0 && self <= {LARGEST_BYTES} : self.matches({cel_text(PATTERN)}) && "
            "quantity(self).isGreaterThan(quantity('0')) && quantity(self).compareTo(quantity('1024Pi')) <= 0",
            ALLOWED,
        )
        for at in ("spec.cache.capacity", "spec.cache.disk.size", "spec.workers.modelMemory")
    ),
    Rule(
        "spec.security.tls",
        "has(self.secretName) || has(self.directory)",
        TLS_SOMEWHERE,
        "'neither'",
    ),
    Rule(
        "spec.security.keys",
        "has(self.secretName) || has(self.file)",
        KEYS_SOMEWHERE,
        "'neither'",
    ),
    Rule("spec.security.keys", "!self.key.contains('/')", KEY_ALLOWED, "self.key", field=".key"),
    *(
        Rule(
            f"spec.{part}.podTemplate.metadata.{field}",
            f"!self.exists(k, {_OWN})",
            OWN_KEYS_ALLOWED,
            f"self.filter(k, {_OWN})",
        )
        for part in ("workers", "router")
        for field in ("labels", "annotations")
    ),
)
