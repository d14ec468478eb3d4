"""What a prompt-agnostic policy knows of the prompts."""

from __future__ import annotations

import pytest

from gesso_router.routing.mean_quality import MeanQuality
from gesso_router.routing.quality import Option


def seen(mean: MeanQuality, *qualities: float, model: str = "") -> MeanQuality:
    for q in qualities:
        mean = mean.seen((Option(0, 1.0), Option(10, q, model=model)))
    return mean


def test_it_is_the_mean_by_variant() -> None:
    mean = seen(seen(MeanQuality(), 0.8, 0.9, 1.0), 0.5, model="light")
    assert mean.means == pytest.approx({("", 0): 1.0, ("", 10): 0.9, ("light", 10): 0.5})


def test_prompts_that_a_variant_cannot_serve_do_not_count() -> None:
    mean = seen(MeanQuality(), 0.8).seen((Option(0, 1.0),))
    assert mean.means["", 10] == 0.8


def test_the_past_fades() -> None:
    mean = seen(MeanQuality(memory=10), *[0.5] * 100, *[0.9] * 50)
    assert mean.means["", 10] == pytest.approx(0.9, abs=0.01)
