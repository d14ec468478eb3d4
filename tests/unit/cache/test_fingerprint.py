"""Whatever changes what a latent means changes the fingerprint, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gesso_worker.cache.fingerprint import ModelIdentity, fingerprint

IDENTITY = ModelIdentity("abc", "Euler", {"beta_start": 0.1, "_diffusers_version": "1"}, 50, 64, 64)
BASE = fingerprint(IDENTITY, 2.0)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(fingerprint(replace(IDENTITY, weights_digest="abd"), 2.0), id="weights"),
        pytest.param(fingerprint(replace(IDENTITY, scheduler="DDIM"), 2.0), id="scheduler"),
        pytest.param(
            fingerprint(replace(IDENTITY, scheduler_config={"beta_start": 0.2}), 2.0), id="schedule"
        ),
        pytest.param(fingerprint(replace(IDENTITY, steps=40), 2.0), id="steps"),
        pytest.param(fingerprint(replace(IDENTITY, width=128), 2.0), id="width"),
        pytest.param(fingerprint(replace(IDENTITY, height=128), 2.0), id="height"),
        pytest.param(fingerprint(IDENTITY, 2.5), id="guidance"),
        pytest.param(fingerprint(IDENTITY, 1.0), id="no guidance"),
        pytest.param(fingerprint(IDENTITY, 2.0, "blurry"), id="negative prompt"),
    ],
)
def test_what_matters_changes_it(changed: str) -> None:
    assert changed != BASE


def test_library_versions_and_the_order_of_keys_do_not() -> None:
    other = {"_diffusers_version": "2", "beta_start": 0.1}
    assert fingerprint(replace(IDENTITY, scheduler_config=other), 2.0) == BASE


def test_without_guidance_the_negative_prompt_and_the_scale_do_not() -> None:
    assert fingerprint(IDENTITY, 0.0, "blurry") == fingerprint(IDENTITY, 1.0)
