"""Stage ``export``: writes the folders that ship, ``tiny-sdxl`` and ``tiny-clip``, in float16.

Takes the latest checkpoint of every stage; a stage that has none yet is written with fresh weights,
so that loading can be developed before training is over. Folders are written aside and then swapped
in, since workers may read them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTokenizer

from gesso_worker.models.tiny import architecture, clip_model, folders, tokenizer
from gesso_worker.models.tiny import checker as checker_model
from gesso_worker.models.tiny.train import checker, clip, common, decoder, encoder, text, unet

#: Files of the folder that other commands write; an export keeps them.
KEPT: Final = ("README.md", "measured.json", "quality.json", "quality_predictor.safetensors")


def half(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights in float16."""
    state = model.state_dict()
    return {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}


def swap(aside: Path, folder: Path) -> None:
    """Put a finished folder in place of the old one, between two renames."""
    for path in aside.rglob("*.safetensors"):
        # Written for the owner alone; a container's user has to read them too.
        path.chmod(0o644)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def pipeline(options: common.Options) -> StableDiffusionXLPipeline:
    """The pipeline from the latest checkpoints, in float16."""
    work = options.work
    torch.manual_seed(0)
    encoders = (
        text.load_encoders
        if (work / "text.pt").exists()
        else lambda _: architecture.text_encoders()
    )(work)
    denoiser = unet.load(work) if (work / "unet.pt").exists() else architecture.unet()
    vae = architecture.vae()
    if (work / "decoder.pt").exists():
        decoder.load_into(vae, options)
    if (work / "encoder.pt").exists():
        encoder.load_into(vae, options)
    tokens = []
    for name, pad in (("tokenizer", tokenizer.EOS_TEXT), ("tokenizer_2", "!")):
        tokenizer.save_transformers(work / "tokenizers" / name, pad)
        tokens.append(CLIPTokenizer.from_pretrained(work / "tokenizers" / name))
    return StableDiffusionXLPipeline(
        vae=vae.half(),
        text_encoder=encoders[0].half(),
        text_encoder_2=encoders[1].half(),
        tokenizer=tokens[0],
        tokenizer_2=tokens[1],
        unet=denoiser.half(),
        scheduler=architecture.scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def run(options: common.Options) -> None:
    """Write both folders."""
    folders.BUILTIN.mkdir(parents=True, exist_ok=True)
    target = folders.SDXL
    aside = folders.BUILTIN / ".tiny-sdxl.new"
    shutil.rmtree(aside, ignore_errors=True)
    pipeline(options).save_pretrained(aside, safe_serialization=True, variant="fp16")
    for name, pad in (("tokenizer", tokenizer.EOS_TEXT), ("tokenizer_2", "!")):
        tokenizer.save_transformers(aside / name, pad)
    for name in ("text_encoder", "text_encoder_2"):
        # transformers loads in the type that the configuration names, diffusers in float32: make them agree.
        path = aside / name / "config.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n"
        )
    trained = (options.work / "checker.pt").exists()
    net = checker.load(options) if trained else checker_model.CheckerNet()
    save_file(half(net), aside / "checker.safetensors")
    for name in KEPT:
        if (target / name).exists():
            shutil.copy2(target / name, aside / name)
    swap(aside, target)

    target = folders.CLIP
    aside = folders.BUILTIN / ".tiny-clip.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    model = clip.load(options) if (options.work / "clip.pt").exists() else clip_model.fresh()
    save_file(half(model), aside / "model.safetensors")
    config = json.dumps(clip_model.CONFIG, indent=2)
    (aside / f"{clip_model.NAME}.json").write_text(config + "\n")
    # What ``open_clip.create_model("local-dir:...")`` reads: the only form that states the image normalisation.
    both = {"model_cfg": clip_model.CONFIG, "preprocess_cfg": clip_model.PREPROCESS}
    (aside / "open_clip_config.json").write_text(json.dumps(both, indent=2) + "\n")
    tokenizer.save_open_clip(aside / "bpe.txt.gz")
    swap(aside, target)
    size = sum(path.stat().st_size for path in folders.BUILTIN.rglob("*") if path.is_file())
    print(f"exported {folders.fingerprint()}, {size / 1e6:.1f} MB in all")
