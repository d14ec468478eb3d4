"""Loads the open_clip text tower that embeds prompts, and runs it on no more tokens than there are.

The image tower is dropped after loading. There is one torch thread, since the operations are small and the
cores are the workers'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gesso.builtin import builtin_path, is_builtin
from gesso_router.embedding import Encode, Vector
from gesso_router.tokenizing import served

if TYPE_CHECKING:
    import torch

#: What a call of the tower costs beside its tokens, in tokens: on a CPU core mostly reading the weights.
#: Measured: 20 for ViT-B-32, more for the tiny tower, whose tokens cost little.
CALL_TOKENS = 20


class EmbeddingLoadError(ValueError):
    """The embedding model cannot be loaded; says which and why."""


def load_encoder(embedding: str) -> Encode:
    """The text tower that `spec.router.embedding` names, as a function. Blocks; imports torch.

    Raises EmbeddingLoadError; see `load_model` for the names.
    """
    encode = encoder_of(*load_model(embedding))
    probe = encode(["a"])
    if probe.ndim != 2 or not np.isfinite(probe).all():
        raise EmbeddingLoadError(
            f"spec.router.embedding: {embedding!r} embeds to {probe.shape}, or not to finite numbers"
        )
    return encode


def load_model(embedding: str) -> tuple[Any, Any]:
    """An open_clip model and its tokenizer.

    `builtin://NAME`, a folder (one open_clip configuration `*.json`, `model.safetensors`,
    `bpe.txt.gz`), an `hf-hub:` id, or an open_clip name, `MODEL` or `MODEL/PRETRAINED`. Raises
    EmbeddingLoadError.
    """
    try:
        if is_builtin(embedding):
            return _from_folder(builtin_path(embedding))
        if Path(embedding).is_dir():
            return _from_folder(Path(embedding))
        return _from_open_clip(embedding)
    except EmbeddingLoadError:
        raise
    except Exception as error:  # every library below has its own
        cause = " ".join(str(error).split()) or type(error).__name__
        raise EmbeddingLoadError(
            f"spec.router.embedding: {embedding!r} cannot be loaded: {cause}"
        ) from error


def encoder_of(model: Any, tokenizer: Any) -> Encode:
    """What embeds texts by the text tower of an open_clip model, whose image tower is dropped."""
    import torch

    # Once for the process: the router has no other use of torch.
    torch.set_num_threads(1)
    if hasattr(model, "visual"):
        del model.visual
    model.eval()
    tower = _Tower(model)
    tokens = served(tokenizer)

    def encode(texts: Sequence[str]) -> Vector:
        with torch.inference_mode():
            features = tower(tokens(list(texts)))
        vectors: Vector = features.float().numpy()
        return vectors

    return encode


class _Tower:
    """A model's text tower, on tokens up to the last prompt's end where what follows cannot count.

    With a causal mask no token sees those after it, and where an embedding is read at the end of its prompt
    nothing else is read: then padding is work for nothing. Other towers get it all.
    """

    def __init__(self, model: Any) -> None:
        """An open_clip model."""
        from torch import nn

        class Text(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.model.encode_text(tokens, normalize=True)
                return found

        self._text = Text()
        own = hasattr(model, "text")
        tower = model.text if own else model
        prefix = "model.text." if own else "model."
        self._cut: tuple[str, str] | None = None
        pool = getattr(tower, "pool_type" if own else "text_pool_type", None)
        if (
            pool == "argmax"
            and getattr(tower, "attn_mask", None) is not None
            and getattr(tower, "cls_emb", None) is None
            and not getattr(tower, "use_pad_mask", False)
        ):
            self._cut = (prefix + "positional_embedding", prefix + "attn_mask")
            self._positions, self._mask = tower.positional_embedding, tower.attn_mask

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors (n, d) of tokens (n, context length)."""
        import torch

        if self._cut is None:
            found: torch.Tensor = self._text(tokens)
            return found
        # The end of a text is its greatest token.
        lengths, order = torch.sort(tokens.argmax(dim=-1) + 1, stable=True)
        rows = [
            self._up_to(int(lengths[group.stop - 1]), tokens[order[group]])
            for group in alike(lengths.tolist())
        ]
        return torch.cat(rows)[torch.argsort(order)]

    def _up_to(self, length: int, tokens: torch.Tensor) -> torch.Tensor:
        from torch.func import functional_call

        assert self._cut is not None
        parts = (self._positions[:length], self._mask[:length, :length])
        found: torch.Tensor = functional_call(
            self._text, dict(zip(self._cut, parts, strict=True)), (tokens[:, :length],)
        )
        return found


def alike(lengths: Sequence[int]) -> list[slice]:
    """Groups of texts of ascending lengths, in tokens, that cost least if each is padded to its longest.

    A call costs as much as `CALL_TOKENS` tokens besides. By dynamic programming over where the last group
    begins.
    """
    # Of the first i texts: the cost, and where their last group begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(lengths) + 1):
        best.append(
            min(
                (best[begin][0] + CALL_TOKENS + (end - begin) * lengths[end - 1], begin)
                for begin in range(end)
            )
        )
    groups, end = [], len(lengths)
    while end:
        begin = best[end][1]
        groups.append(slice(begin, end))
        end = begin
    return groups[::-1]


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
