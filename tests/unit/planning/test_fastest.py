"""Whether a deadline can be made by the devices that there are."""

import re
from dataclasses import replace

import pytest

from gesso.api import DiffusionService, ModelSpec, OtherModelSpec, VariantSpec
from gesso.profile import Profile
from gesso_operator.fastest import fastest_image_seconds, slo_below_fastest_image
from gesso_operator.planning import WorkerView

# 0.5 s for encoding and decoding, 0.1 s a step: 3.0 s at K = 25.
L4 = Profile("L4", 50, 0.25, 0.25, (0.1, 0.15))
H100 = replace(L4, device="H100", step_seconds=(0.02,))
LIGHT = replace(L4, steps=4)


def service(deadline: float, *others: VariantSpec) -> DiffusionService:
    ladder = VariantSpec(skipped_steps=(0, 10, 25))
    return DiffusionService.model_validate(
        {
            "metadata": {"name": "s"},
            "spec": {
                "model": ModelSpec(source="some/model"),
                "variants": (ladder, *others),
                "slo": {"latencySeconds": deadline},
                "workers": {"max": 2},
            },
        }
    )


def other() -> VariantSpec:
    return VariantSpec(name="light", model=OtherModelSpec(source="some/light", steps=4))


def worker(profile: Profile | None, model: str = "", ready: bool = True) -> WorkerView:
    return WorkerView("w", ready, 0, 1, profile, model)


def test_fastest_is_alone_at_the_largest_level():
    assert fastest_image_seconds(L4, (0, 10, 25)) == pytest.approx(3.0)
    assert fastest_image_seconds(L4, (0,)) == pytest.approx(5.5)


def test_deadline_below_it_is_told_with_value_and_what_is_allowed():
    assert slo_below_fastest_image(service(2.5), [worker(L4)]) == (
        "spec.slo.latencySeconds: 2.5 is not allowed: at least 3, which the fastest possible image takes "
        "(at K = 25 on L4, measured)"
    )


def test_what_is_told_to_be_allowed_is():
    odd = replace(L4, step_seconds=(0.0612345,))
    told = slo_below_fastest_image(service(1), [worker(odd)])
    least = re.search(r"at least ([0-9.]+)", told)
    assert least
    assert slo_below_fastest_image(service(float(least[1])), [worker(odd)]) == ""


@pytest.mark.parametrize(
    ("workers", "deadline"),
    [((L4,), 3.1), ((L4, H100), 1.1), ((None, None), 0.1), ((), 0.1)],
    ids=["above", "one device makes it", "not measured", "no worker"],
)
def test_nothing_is_wrong(workers, deadline):
    assert slo_below_fastest_image(service(deadline), [worker(p) for p in workers]) == ""


def test_another_model_may_make_it():
    asked = service(1.0, other())
    assert slo_below_fastest_image(asked, [worker(L4)]) == "", "nobody has held it yet"
    assert slo_below_fastest_image(asked, [worker(L4), worker(LIGHT, "light")]) == ""
    told = slo_below_fastest_image(service(0.8, other()), [worker(L4), worker(LIGHT, "light")])
    assert "at least 0.9, which the fastest possible image takes (by light on L4" in told


def test_a_model_of_an_earlier_spec_counts_for_nothing():
    told = slo_below_fastest_image(service(1.0), [worker(L4), worker(LIGHT, "light")])
    assert "at K = 25" in told
