"""Embeds prompts with an open_clip text tower, on one thread of its own, and remembers what it embedded.

Prompts that arrive while the thread is busy form the next batch: nobody waits for company. The
image tower is dropped after loading. There is one torch thread, since the operations are tiny and
the cores are the workers'.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gesso.builtin import builtin_path, is_builtin

Vector = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Text in, unit vectors out."""

    async def embed(self, prompt: str) -> Vector:
        """The embedding of a prompt, float32, shape (d,), length 1."""


Encode = Callable[[Sequence[str]], Vector]


class TextEmbedder:
    """Runs an encode function in a thread, in batches, behind an LRU keyed by the prompt's SHA-256."""

    def __init__(self, encode: Encode, max_batch: int = 16, remembered: int = 4096) -> None:
        """`encode` maps n texts to unit vectors of shape (n, d); it is called from one thread only."""
        self._encode = encode
        self._max_batch = max_batch
        self._remembered = remembered
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._pending: OrderedDict[bytes, tuple[str, asyncio.Future[Vector]]] = OrderedDict()
        self._runner: asyncio.Task[None] | None = None

    async def embed(self, prompt: str) -> Vector:
        """See Embedder. Equal prompts under way share one computation."""
        key = hashlib.sha256(prompt.encode()).digest()
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        waiting = self._pending.get(key)
        if waiting is None:
            waiting = (prompt, asyncio.get_running_loop().create_future())
            self._pending[key] = waiting
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="embed")
        # Shielded: one client that goes away must not take the answer from the others.
        return await asyncio.shield(waiting[1])

    async def close(self) -> None:
        """Ends the thread; prompts under way are cancelled."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=2.0)
        for _, future in self._pending.values():
            future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            keys = list(self._pending)[: self._max_batch]
            texts = [self._pending[k][0] for k in keys]
            try:
                vectors = await loop.run_in_executor(self._thread, self._encode, texts)
            except Exception as error:  # a failing encoder fails its prompts, not the loop
                for key in keys:
                    self._settle(key, error)
                continue
            for key, vector in zip(keys, vectors, strict=True):
                self._cache[key] = vector
                self._settle(key, vector)
            while len(self._cache) > self._remembered:
                self._cache.popitem(last=False)

    def _settle(self, key: bytes, result: Vector | Exception) -> None:
        _, future = self._pending.pop(key)
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # nobody may be left to ask
        else:
            future.set_result(result)


class EmbeddingLoadError(ValueError):
    """The embedding model cannot be loaded; says which and why."""


def load_encoder(embedding: str) -> Encode:
    """The text tower that `spec.router.embedding` names, as a function. Blocks; imports torch.

    `builtin://NAME`, a folder (one open_clip configuration `*.json`, `model.safetensors`,
    `bpe.txt.gz`), an `hf-hub:` id, or an open_clip name, `MODEL` or `MODEL/PRETRAINED`. Raises
    EmbeddingLoadError.
    """
    try:
        if is_builtin(embedding):
            model, tokenizer = _from_folder(builtin_path(embedding))
        elif Path(embedding).is_dir():
            model, tokenizer = _from_folder(Path(embedding))
        else:
            model, tokenizer = _from_open_clip(embedding)
    except EmbeddingLoadError:
        raise
    except Exception as error:  # every library below has its own
        cause = " ".join(str(error).split()) or type(error).__name__
        raise EmbeddingLoadError(
            f"spec.router.embedding: {embedding!r} cannot be loaded: {cause}"
        ) from error

    import torch

    # Once for the process: the router has no other use of torch.
    torch.set_num_threads(1)
    if hasattr(model, "visual"):
        del model.visual
    model.eval()

    def encode(texts: Sequence[str]) -> Vector:
        with torch.inference_mode():
            features = model.encode_text(tokenizer(list(texts)), normalize=True)
        vectors: Vector = features.float().numpy()
        return vectors

    probe = encode(["a"])
    if probe.ndim != 2 or not np.isfinite(probe).all():
        raise EmbeddingLoadError(
            f"spec.router.embedding: {embedding!r} embeds to {probe.shape}, or not to finite numbers"
        )
    return encode


def _from_folder(folder: Path) -> tuple[Any, Any]:
    configurations = sorted(p for p in folder.glob("*.json") if _is_open_clip(p))
    if len(configurations) != 1:
        raise EmbeddingLoadError(
            f"spec.router.embedding: {str(folder)!r} holds {len(configurations)} open_clip configurations "
            "(a .json with embed_dim and text_cfg): exactly 1 is needed"
        )
    open_clip = _import_open_clip()

    configuration = configurations[0]
    open_clip.add_model_config(configuration)
    weights = folder / "model.safetensors"
    model = open_clip.create_model(configuration.stem, pretrained=str(weights), load_weights=True)
    context = json.loads(configuration.read_text())["text_cfg"].get("context_length", 77)
    vocabulary = folder / "bpe.txt.gz"
    if vocabulary.is_file():
        return model, open_clip.SimpleTokenizer(bpe_path=str(vocabulary), context_length=context)
    return model, open_clip.get_tokenizer(configuration.stem)


def _import_open_clip() -> Any:
    from gesso import torchvision_shim

    torchvision_shim.install()  # before open_clip, which imports torchvision
    import open_clip

    return open_clip


def _is_open_clip(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "embed_dim" in content and "text_cfg" in content


def _from_open_clip(name: str) -> tuple[Any, Any]:
    open_clip = _import_open_clip()

    if name.startswith("hf-hub:"):
        return open_clip.create_model(name), open_clip.get_tokenizer(name)
    model_name, _, pretrained = name.partition("/")
    if model_name not in open_clip.list_models():
        raise EmbeddingLoadError(
            f"spec.router.embedding: {name!r} is not allowed: builtin://tiny-clip, a folder, hf-hub:ID, "
            "or an open_clip model, MODEL/PRETRAINED"
        )
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if not pretrained and not tags:
        raise EmbeddingLoadError(f"spec.router.embedding: {name!r} has no pretrained weights")
    model = open_clip.create_model(model_name, pretrained=pretrained or tags[0])
    return model, open_clip.get_tokenizer(model_name)
