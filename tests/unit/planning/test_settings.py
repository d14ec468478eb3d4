"""What the planner is told of a DiffusionService."""

import json

import pytest

from gesso.api import DiffusionService, parse_service
from gesso_operator.planning import ModelVariant, Settings


def service(workers: dict, variants: list | None = None) -> DiffusionService:
    spec = {
        "model": {"source": "some/model"},
        "slo": {"latencySeconds": 9, "attainment": 0.99},
        "workers": workers,
    }
    if variants:
        spec["variants"] = variants
    document = {
        "apiVersion": "gesso.dev/v1alpha1",
        "kind": "DiffusionService",
        "metadata": {"name": "s"},
        "spec": spec,
    }
    return parse_service(json.dumps(document))


def test_other_models_are_variants_of_their_names():
    variants = [
        {"name": "own", "skippedSteps": [0, 10]},
        {"name": "light", "model": {"source": "some/light", "steps": 4, "quality": 0.9}},
    ]
    made = service({"max": 2}, variants)
    settings = Settings.of(made)
    assert made.ladder == settings.ladder == (0, 10)
    assert settings.models == (ModelVariant("light", 4),)
    assert settings.variants == (("", 0), ("", 10), ("light", 0))
    assert made.spec.variants[1].model.quality == 0.9
    assert made.spec.variants[1].levels == (0,)


@pytest.mark.parametrize(
    ("workers", "elastic", "bounds"),
    [
        ({"min": 2, "max": 5}, True, (2, 5)),
        ({"min": 2, "max": 5}, False, (None, None)),
        ({"min": 2, "max": 5, "replicas": 3}, True, (None, None)),
        ({"min": 5, "max": 5}, True, (None, None)),
    ],
    ids=["elastic", "on one machine", "pinned", "of one size"],
)
def test_fleet_is_elastic_where_it_may_be(workers, elastic, bounds):
    settings = Settings.of(service(workers), elastic)
    assert (settings.workers_min, settings.workers_max) == bounds
    assert settings.elastic == (bounds != (None, None))


def test_cost_and_start_are_the_spec_s():
    asked = {"max": 5, "costPerHour": 12, "startSeconds": 90}
    settings = Settings.of(service(asked), elastic=True)
    assert (settings.worker_hour_cost, settings.start_s) == (12, 90)
    assert settings.quality_target is None
    assert Settings.of(service({"max": 5}), elastic=True).quality_target == 0.97


@pytest.mark.parametrize(
    ("workers", "count"), [({"min": 2, "max": 5}, 2), ({"min": 2, "max": 5, "replicas": 3}, 3)]
)
def test_a_fleet_of_fixed_size_has_replicas_else_min(workers, count):
    assert service(workers).spec.workers.least == count
