"""The text tower of an open_clip folder: loaded or refused by name, and exact on trimmed tokens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gesso import torchvision_shim
from gesso_router.text_tower import CALL_TOKENS, EmbeddingLoadError, alike, encoder_of, load_encoder


def open_clip() -> Any:
    torchvision_shim.install()  # before open_clip
    import open_clip

    return open_clip


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained open_clip model in the layout of the builtin one, with open_clip's own vocabulary."""
    folder = tmp_path_factory.mktemp("clip")
    configuration: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    name = "router-test-clip"
    (folder / f"{name}.json").write_text(json.dumps(configuration))
    (folder / "other.json").write_text("{}")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    open_clip().add_model_config(folder / f"{name}.json")
    save_file(open_clip().create_model(name).state_dict(), folder / "model.safetensors")
    return folder


def test_a_folder_gives_unit_vectors_that_do_not_depend_on_the_batch(tiny_folder: Path) -> None:
    encode = load_encoder(str(tiny_folder))
    texts = ["a large red star", "a small blue ring", "x " * 500]
    together = encode(texts)
    assert together.shape == (3, 16)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    for text, vector in zip(texts, together, strict=True):
        assert encode([text])[0] == pytest.approx(vector, abs=1e-5)
    assert not np.allclose(together[0], together[1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("builtin://nothing", "builtin://nothing"),
        ("no-such-model", "is not allowed: builtin://tiny-clip, a folder, hf-hub:ID"),
        ("EMPTY", "holds 0 open_clip configurations"),
        ("BROKEN", "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(
    source: str, message: str, tmp_path: Path, tiny_folder: Path
) -> None:
    if source == "BROKEN":
        configuration = next(tiny_folder.glob("router-*.json"))
        (tmp_path / "router-broken-clip.json").write_text(configuration.read_text())
        (tmp_path / "model.safetensors").write_bytes(b"no weights")
    folder = source in ("EMPTY", "BROKEN")
    with pytest.raises(EmbeddingLoadError, match=message) as error:
        load_encoder(str(tmp_path) if folder else source)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("spec.router.embedding: ")


TEXTS = ("a large red star", "a small blue ring on a very wide background of sand", "x " * 500, "")


class Watched:
    """Counts the tokens that a tower sees."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        module.register_forward_hook(lambda _, given, __: self.shapes.append(given[0].shape))


@pytest.mark.parametrize("own_tower", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_trimmed_texts_embed_as_padded_ones_do(own_tower: bool, count: int) -> None:
    """Both forms that open_clip has: the tower's parts in the model, and a tower of its own."""
    name = "ViT-S-32-alt" if own_tower else "ViT-S-32"
    library = open_clip()
    torch.manual_seed(1)
    model = library.create_model(
        name, force_custom_text=own_tower, precision="fp32", pretrained=None
    )
    assert hasattr(model, "text") is own_tower
    tokens = library.get_tokenizer(name)(list(TEXTS[:count]))
    with torch.inference_mode():
        padded = model.eval().encode_text(tokens, normalize=True).numpy()
    seen = Watched(model.text.token_embedding if own_tower else model.token_embedding)
    trimmed = encoder_of(model, library.get_tokenizer(name))(TEXTS[:count])
    assert np.allclose(trimmed, padded, atol=2e-6)
    shapes = {1: [(1, 6)], 2: [(2, 13)], 4: [(3, 13), (1, 77)]}[count]
    assert seen.shapes == shapes


def test_a_tower_without_a_causal_mask_gets_all_of_a_text() -> None:
    library = open_clip()
    model = library.create_model("ViT-S-32-alt", force_custom_text=True, pretrained=None)
    model.text.attn_mask = None
    seen = Watched(model.text.token_embedding)
    encoder_of(model, library.get_tokenizer("ViT-S-32-alt"))(["a ring"])
    assert seen.shapes[-1] == (1, 77)


def _cost(lengths: list[int], groups: Sequence[slice]) -> int:
    return sum(CALL_TOKENS + len(g) * max(g) for g in (lengths[part] for part in groups))


@given(st.lists(st.integers(1, 77), min_size=1, max_size=7).map(sorted))
def test_texts_are_grouped_at_the_least_cost(lengths: list[int]) -> None:
    groups = alike(lengths)
    assert [i for part in groups for i in range(part.start, part.stop)] == list(range(len(lengths)))
    ways = []
    for cuts in itertools.product((False, True), repeat=len(lengths) - 1):
        at = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(lengths)]
        ways.append([slice(a, b) for a, b in itertools.pairwise(at)])
    assert _cost(lengths, groups) == min(_cost(lengths, way) for way in ways)


def test_no_text_is_no_group() -> None:
    assert alike([]) == []
