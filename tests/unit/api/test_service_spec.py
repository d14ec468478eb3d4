"""The DiffusionService: what is accepted, and how each fault is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gesso.api import DiffusionService, ServiceStatus, SpecError, load_service, parse_service
from gesso.api.quantity import format_bytes, parse_bytes

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "tiny.yaml"
TEXT = SAMPLE.read_text()

MINIMAL = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: small}
spec:
  model: {source: ./sdxl}
  slo: {latencySeconds: 20}
  workers: {max: 3}
"""


def test_sample_is_what_the_tiny_model_needs():
    service = load_service(SAMPLE)
    spec = service.spec
    assert service.metadata.name == "tiny"
    assert service.ladder == (0, 5, 10, 15, 20, 25)
    assert (spec.model.steps, spec.model.width, spec.model.guidance_scale) == (50, 64, 2.0)
    assert spec.cache.capacity_bytes == 128 * 2**20
    assert spec.router.embedding == "builtin://tiny-clip"
    assert (spec.workers.replicas, spec.workers.min, spec.workers.max) == (2, 1, 4)


def test_defaults_fill_what_is_left_out():
    spec = parse_service(MINIMAL).spec
    assert spec.model.steps == 50
    assert spec.variants[0].skipped_steps == (0, 5, 10, 15, 20, 25)
    assert spec.workers.min == 1
    assert spec.router.embedding.startswith("hf-hub:")
    assert (spec.scheduling.policy, spec.cache.isolation) == ("QualityAware", "Tenant")


def test_written_service_reads_back_the_same():
    service = load_service(SAMPLE)
    assert parse_service(service.model_dump_json(exclude_none=True)) == service


def test_service_is_frozen():
    with pytest.raises(ValidationError):
        load_service(SAMPLE).spec.slo.latency_seconds = 1.0


FAULTS = {
    "level not below steps": (
        "20, 25]",
        "20, 50]",
        "spec.variants[0].skippedSteps[5]: 50 is not allowed: "
        "0 or more and less than spec.model.steps (50)",
    ),
    "negative level": (
        "20, 25]",
        "20, -5]",
        "spec.variants[0].skippedSteps[5]: -5 is not allowed: at least 0",
    ),
    "ladder without 0": (
        "[0, 5,",
        "[5,",
        "spec.variants[0].skippedSteps: [5, 10, 15, 20, 25] is not allowed: the first level is 0",
    ),
    "level twice": (
        "20, 25]",
        "20, 20]",
        "spec.variants[0].skippedSteps: [0, 5, 10, 15, 20, 20] is not allowed: ascending",
    ),
    "empty ladder": (
        "[0, 5, 10, 15, 20, 25]",
        "[]",
        "spec.variants[0].skippedSteps: [] is not allowed: at least 1",
    ),
    "min above max": (
        "min: 1",
        "min: 5",
        "spec.workers.max: 4 is not allowed: at least spec.workers.min (5)",
    ),
    "more workers than the most": (
        "replicas: 2",
        "replicas: 5",
        "spec.workers.replicas: 5 is not allowed: at most spec.workers.max (4)",
    ),
    "deadline below what is left to do": (
        "latencySeconds: 4",
        "latencySeconds: 0.02",
        "spec.slo.latencySeconds: 0.02 is not allowed: at least 0.025, a millisecond for each of the 25 steps "
        "that the fastest possible image takes",
    ),
    "claim in capitals": (
        "builtin://tiny-sdxl",
        "pvc://Models/sdxl",
        "spec.model.source: 'pvc://Models/sdxl' is not allowed: pvc://CLAIM or pvc://CLAIM/FOLDER",
    ),
    "no quantity": (
        "maxBatch: 8",
        "maxBatch: 8\n    resources: {limits: {cpu: many}}",
        "spec.workers.resources.limits.cpu: 'many' is not allowed: a quantity such as",
    ),
    "no workers": ("min: 1", "min: 0", "spec.workers.min: 0 is not allowed: at least 1"),
    "deadline of zero": (
        "latencySeconds: 4",
        "latencySeconds: 0",
        "spec.slo.latencySeconds: 0 is not allowed: above 0",
    ),
    "deadline not a number": (
        "latencySeconds: 4",
        "latencySeconds: .nan",
        "spec.slo.latencySeconds: NaN is not allowed",
    ),
    "attainment of one": (
        "attainment: 0.95",
        "attainment: 1",
        "spec.slo.attainment: 1 is not allowed: below 1",
    ),
    "quality above one": (
        "minRelativeQuality: 0.8",
        "minRelativeQuality: 1.5",
        "spec.slo.minRelativeQuality: 1.5 is not allowed: at most 1",
    ),
    "text for a number": (
        "steps: 50",
        'steps: "50"',
        "spec.model.steps: '50' is not allowed: a whole number",
    ),
    "broken steps": (
        "steps: 50",
        "steps: 50.5",
        "spec.model.steps: 50.5 is not allowed: a whole number",
    ),
    "width not of 8": (
        "width: 64",
        "width: 63",
        "spec.model.width: 63 is not allowed: a multiple of 8",
    ),
    "unknown policy": (
        "QualityAware",
        "Greedy",
        "spec.scheduling.policy: 'Greedy' is not allowed: one of QualityAware, PromptAgnostic, "
        "BacklogPrice, Argus, Nirvana, Proteus, ClipperHA, ClipperHT, RoundRobin, LeastOutstanding",
    ),
    "mode that YAML reads as false": (
        "mode: Auto",
        "mode: Off",
        "(in quotes: YAML reads a bare Off as false)",
    ),
    "quantity": (
        "128Mi",
        "128Mo",
        "spec.cache.capacity: '128Mo' is not allowed: a quantity of bytes",
    ),
    "name": ("name: tiny", "name: Tiny_1", "metadata.name: 'Tiny_1' is not allowed: a DNS label"),
    "version": (
        "gesso.dev/v1alpha1",
        "gesso.dev/v2",
        "apiVersion: 'gesso.dev/v2' is not allowed: gesso.dev/v1alpha1",
    ),
    "kind": (
        "kind: DiffusionService",
        "kind: Service",
        "kind: 'Service' is not allowed: DiffusionService",
    ),
    "misspelt field": (
        "maxQueue:",
        "maxQeue:",
        "spec.router.maxQeue: unknown field: did you mean maxQueue?",
    ),
    "snake case": (
        "minRelativeQuality:",
        "min_relative_quality:",
        "unknown field: did you mean minRelativeQuality?",
    ),
    "unlike any field": (
        "maxQueue:",
        "zzz:",
        "spec.router.zzz: unknown field: the fields are replicas, maxQueue, embedding",
    ),
    "misspelt section": ("  slo:", "  sloo:", "spec.sloo: unknown field: did you mean slo?"),
    "field missing": (
        "    source: builtin://tiny-sdxl\n",
        "",
        "spec.model.source: missing: required",
    ),
    "key twice": (
        "    steps: 50\n",
        "    steps: 50\n    steps: 40\n",
        "column 5: not YAML: key 'steps' is given twice",
    ),
    "syntax": ("  slo:", "  slo: [", "line 20, column 15: not YAML:"),
    "no date": (
        "  slo:",
        "  note: 2024-02-30\n  slo:",
        "line 18, column 9: not YAML: a value that cannot be read as timestamp",
    ),
    "no character": ("  slo:", '  note: "\\UFFFFFFFF"\n  slo:', "not YAML: a character that"),
    "a nest": (
        "  slo:",
        f"  note: {'[' * 1000}\n  slo:",
        "is nested too deep: not a DiffusionService",
    ),
    "two documents": ("# The tiny", "a: 1\n---\n# The tiny", "holds 2 YAML documents"),
}


@pytest.mark.parametrize(("old", "new", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_told_with_path_value_and_what_is_allowed(old, new, told):
    assert old in TEXT
    with pytest.raises(SpecError) as caught:
        parse_service(TEXT.replace(old, new), "tiny.yaml")
    assert told in str(caught.value)
    assert all(line.startswith("tiny.yaml: ") for line in str(caught.value).splitlines())


def test_each_fault_has_a_line_of_its_own():
    bad = TEXT.replace("latencySeconds: 4", "latencySeconds: -1").replace(
        "maxBatch: 8", "maxBatch: 0"
    )
    with pytest.raises(SpecError) as caught:
        parse_service(bad)
    assert [f.path for f in caught.value.faults] == [
        "spec.slo.latencySeconds",
        "spec.workers.maxBatch",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"", "holds 0 YAML documents"),
        (b"- 1\n- 2\n", "holds [1, 2]: a mapping"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"a" * (2**20 + 1), "is larger than"),
        (b"a: &x [*x]", "Circular reference"),
        (b"kind: DiffusionService\nspec: {}\n", "apiVersion: missing: required"),
    ],
    ids=["absent", "empty", "list", "binary", "huge", "recursive", "no version"],
)
def test_file_that_holds_no_service(tmp_path, content, told):
    file = tmp_path / "x.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_service(file)
    assert told in str(caught.value)


def test_directory_is_no_file(tmp_path):
    with pytest.raises(SpecError, match="is a directory"):
        load_service(tmp_path)


def models(root: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if root not in seen:
        seen.add(root)
        for field in root.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    models(inner, seen)
    return seen


def test_every_field_has_a_description_for_kubectl_explain():
    found = models(DiffusionService, set())
    assert ServiceStatus in found
    bare = [
        f"{m.__name__}.{name}"
        for m in found
        for name, field in m.model_fields.items()
        if not field.description or not field.description.rstrip().endswith(".")
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("128Mi", 2**27),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("2k", 2000),
        ("0.5Ki", 512),
        ("1T", 10**12),
    ],
)
def test_quantities(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1m", "1 Gi", "Gi", "1e", "1ee3", "9999999999Ti", "1KB", "1e99"]
)
def test_quantities_that_are_none(text):
    with pytest.raises(ValueError, match="quantity"):
        parse_bytes(text)


@given(st.integers(1, 2**60))
def test_formatted_bytes_read_back(size):
    assert parse_bytes(format_bytes(size)) == size
