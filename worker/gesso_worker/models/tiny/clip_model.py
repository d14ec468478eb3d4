"""Configuration of the tiny open_clip model, and how to load it."""

from __future__ import annotations

from gesso import torchvision_shim  # noqa: F401  isort: skip
from pathlib import Path
from typing import Any, Final

import open_clip
import torch

from gesso_worker.models.tiny import folders, tokenizer

NAME: Final = "gesso-tiny-clip"
CONFIG: Final[dict[str, Any]] = {
    "embed_dim": 64,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 8,
        "width": 128,
        "layers": 4,
        "head_width": 32,
        "mlp_ratio": 3.0,
    },
    "text_cfg": {
        "context_length": tokenizer.POSITIONS,
        "vocab_size": len(tokenizer.VOCABULARY),
        "width": 96,
        "heads": 4,
        "layers": 3,
        "mlp_ratio": 3.0,
    },
}
#: open_clip's own defaults, so that its transforms fit the model without being told.
PREPROCESS: Final[dict[str, Any]] = {
    "size": [64, 64],
    "mode": "RGB",
    "mean": list(open_clip.OPENAI_DATASET_MEAN),
    "std": list(open_clip.OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Images (n, 3, 64, 64) in -1..1 as the model wants them."""
    mean = torch.tensor(PREPROCESS["mean"]).view(3, 1, 1)
    return (pixels / 2 + 0.5 - mean) / torch.tensor(PREPROCESS["std"]).view(3, 1, 1)


def fresh() -> Any:
    """The model with fresh weights."""
    return open_clip.model.CLIP(**CONFIG)


def load(folder: Path | str = folders.CLIP) -> tuple[Any, open_clip.SimpleTokenizer]:
    """Model and tokenizer of a folder, through open_clip's own loading."""
    root = Path(folder)
    open_clip.add_model_config(root / f"{NAME}.json")
    model = open_clip.create_model(NAME, pretrained=str(root / "model.safetensors"))
    tokens = open_clip.SimpleTokenizer(
        bpe_path=str(root / "bpe.txt.gz"), context_length=tokenizer.POSITIONS
    )
    return model.eval().requires_grad_(False), tokens
