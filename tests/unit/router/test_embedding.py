"""Embedding: batches, memory, failures; and the text tower of an open_clip folder."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gesso import torchvision_shim
from gesso_router.embedding import EmbeddingLoadError, TextEmbedder, Vector, load_encoder


class Counting:
    """Encodes by length; records its batches; can be held."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def __call__(self, texts: Sequence[str]) -> Vector:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.may_go.wait(10)
        if "bad" in texts:
            raise RuntimeError("bad text")
        return np.array([[len(t), 0.0] for t in texts], dtype=np.float32)


async def test_those_who_come_while_it_is_busy_are_the_next_batch() -> None:
    encode = Counting()
    embedder = TextEmbedder(encode, max_batch=3)
    encode.may_go.clear()
    first = asyncio.create_task(embedder.embed("a"))
    await asyncio.to_thread(encode.entered.wait, 10)
    rest = [asyncio.create_task(embedder.embed(t)) for t in ("bb", "bb", "ccc", "dddd", "eeeee")]
    await asyncio.sleep(0)
    encode.may_go.set()
    assert [float((await t)[0]) for t in (first, *rest)] == [1, 2, 2, 3, 4, 5]
    assert encode.batches == [["a"], ["bb", "ccc", "dddd"], ["eeeee"]]
    await embedder.close()


async def test_it_remembers_the_last_ones_used() -> None:
    encode = Counting()
    embedder = TextEmbedder(encode, remembered=2)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        await embedder.embed(text)
    assert encode.batches == [["a"], ["bb"], ["ccc"], ["bb"]]
    await embedder.close()


async def test_a_failure_hits_its_own_batch_only() -> None:
    embedder = TextEmbedder(Counting())
    with pytest.raises(RuntimeError, match="bad text"):
        await embedder.embed("bad")
    assert float((await embedder.embed("good"))[0]) == 4
    await embedder.close()


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    encode = Counting()
    encode.may_go.clear()
    embedder = TextEmbedder(encode)
    leaving = asyncio.create_task(embedder.embed("a"))
    staying = asyncio.create_task(embedder.embed("a"))
    await asyncio.to_thread(encode.entered.wait, 10)
    leaving.cancel()
    await asyncio.wait({leaving})
    encode.may_go.set()
    assert float((await staying)[0]) == 1
    await embedder.close()


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
    torchvision_shim.install()  # before open_clip
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    open_clip.add_model_config(folder / f"{name}.json")
    save_file(open_clip.create_model(name).state_dict(), folder / "model.safetensors")
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
