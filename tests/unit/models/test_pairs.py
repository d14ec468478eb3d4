"""How two prompts differ, and the rows of the quality table."""

import itertools

import numpy as np
import pytest
import torch

from gesso import torchvision_shim
from gesso_worker.models.tiny import scenes
from gesso_worker.models.tiny.evaluate import pairs, quality


@pytest.mark.parametrize("kind", scenes.KINDS)
def test_a_change_is_recognised_as_its_kind(kind: str) -> None:
    rng = np.random.default_rng(12)
    seen = 0
    while seen < 60:
        scene = scenes.sample_scene(rng)
        if kind not in scenes.applicable_kinds(scene):
            continue
        seen += 1
        assert pairs.difference(scene, scenes.mutate(scene, rng, kind=kind)) in (kind, "several")
        assert pairs.difference(scene, scene) == "repeat"


def test_rows_by_similarity_cover_everything_once() -> None:
    rng = np.random.default_rng(0)
    similarity = np.concatenate([rng.uniform(-0.2, 0.99, 150), np.ones(10)])
    relative = rng.uniform(0.5, 1.0, (160, 6))
    rows = quality.by_similarity(similarity, relative)
    assert sum(row["n"] for row in rows) == 160
    assert rows[0]["similarity_min"] == -1.0
    assert rows[-1]["similarity_max"] == 1.0
    for a, b in itertools.pairwise(rows):
        assert a["similarity_max"] == b["similarity_min"]


def test_the_shim_leaves_a_working_torchvision_alone() -> None:
    torchvision = pytest.importorskip("torchvision")
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])

    assert torchvision_shim.install() is False
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
