"""Part ``card``: writes the model card from the measured figures, so that the two never differ."""

from __future__ import annotations

import json
from typing import Any, Final

from gesso_worker.models.tiny import folders

COMMAND: Final = "python -m gesso_worker.models.tiny.evaluate"
MACHINE: Final = "2 CPU cores, AVX-512/AMX"

HEAD: Final = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# Tiny SD-XL

A real but tiny SD-XL: the classes of `StableDiffusionXLPipeline` with small configurations, trained
from nothing on synthetic captioned scenes. It makes 64x64 images in well under a second on one CPU
thread, so that everything Gesso does with SD-XL can be run, tested and watched without a GPU and
without a download.

```python
from diffusers import StableDiffusionXLPipeline

pipe = StableDiffusionXLPipeline.from_pretrained(folder, variant="fp16", use_safetensors=True)
text = "a large red star above a small blue ring"
pipe(text, num_inference_steps=50, guidance_scale=2.0, height=64, width=64).images[0]
```

**What its figures do not say.** Where quality falls as steps are skipped is a *design choice* of this
model: its noise schedule (`beta_start` 0.0003, `beta_end` 0.0072, where SD-XL has 0.00085 and 0.012)
was chosen so that the fall lies within the ladder of skipped steps. No figure here says anything
about SD-XL's own curve, quality or speed.

## What it knows

Scenes of a small grammar (`gesso_worker.models.tiny.scenes`): one thing at one of nine places, two
different things beside or above each other, or two to four alike; six shapes (circle, square,
triangle, star, ring, cross), eight colours (red, orange, yellow, green, blue, purple, white, black),
small or large, plain or striped; a background of another colour, plain, with a gradient or with a
spotlight. Whatever a prompt leaves unsaid (place, size, background, style) is drawn at random. Words
outside the grammar are read as bytes and mean nothing to it. It was trained on no photograph, artwork
or scraped text, and can draw nothing else.

## Parts

| part | class | parameters | configuration |
|---|---|---|---|
"""

PARTS: Final = (
    (
        "unet",
        "UNet2DConditionModel",
        "channels 64, 128; text-time conditioning as SD-XL's; 8x8 latents of 16 channels",
    ),
    (
        "vae",
        "AutoencoderKL",
        "factor 8, channels 16, 32, 64, 96; latents near principal components of 8x8 patches",
    ),
    ("text_encoder", "CLIPTextModel", "4 layers of width 64, 32 positions"),
    ("text_encoder_2", "CLIPTextModelWithProjection", "4 layers of width 64, 32 positions"),
)


def _parameters(name: str) -> int:
    from safetensors import safe_open

    (path,) = (folders.SDXL / name).glob("*.safetensors")
    total = 0
    with safe_open(path, framework="np") as weights:
        for key in weights.keys():  # noqa: SIM118 - not a dict
            size = 1
            for side in weights.get_slice(key).get_shape():
                size *= side
            total += size
    return total


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _curve_rows(named: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [
        f"| {name} | {row['n']} | " + " | ".join(f"{v:.3f}" for v in row["mean"]) + " |"
        for name, row in named
    ]


def _quality(found: dict[str, Any]) -> list[str]:
    head = ["", *(f"K = {k}" for k in found["skipped_steps"])]
    kinds = _curve_rows(list(found["by_kind"].items()))
    bins = _curve_rows(
        [
            (f"{r['similarity_min']:.4f} to {r['similarity_max']:.4f}", r)
            for r in found["by_similarity"]
        ]
    )
    worst = max(max(row["sem"]) for row in found["by_kind"].values())
    rule = "|---|" + "---|" * (len(head))
    return [
        "## Quality over skipped steps",
        "",
        "Mean relative quality of a prompt B that resumes from the latents of an earlier prompt A:",
        "the attribute checker's soft score at K, divided by that of B from scratch. K = 0 uses B's",
        "own noise, K > 0 that of A, so a ratio may exceed 1 by chance; one seed a pair. Prompts are",
        "drawn from the whole grammar, so about 15 in 16 are of the kind that training saw. Exact",
        "repeats return A's own image at every K > 0: their constant tells by how much these A's",
        "happened to differ from fresh images, not a cost of skipping.",
        f"`{COMMAND} quality`; largest standard error of a mean {worst:.3f};",
        f"model `{found['model_fingerprint']}`.",
        "",
        "| B differs from A by | n" + " | ".join(head) + " |",
        rule,
        *kinds,
        *_curve_rows([("(a stream of sessions)", found["overall"])]),
        "",
        "| cosine similarity of the prompts (tiny CLIP) | n" + " | ".join(head) + " |",
        rule,
        *bins,
        "",
        f"Cached images score {found['own_prompt_score']:.3f} against their own prompts.",
        "",
    ]


def _floors(found: dict[str, Any], speed: dict[str, Any]) -> list[str]:
    images, clip, checker = found["generation"], found["clip"], found["checker"]
    cases = ", ".join(
        f"{c['seconds_an_image']} s at batch {c['batch']}, K = {c['skipped_steps']}"
        for c in speed["cases"]
    )
    slots = images["attributes_right"]
    return [
        "## Measured",
        "",
        f"On {MACHINE}, one thread a process, in float32 from these float16 weights. Prompts are",
        "held out: training never saw a scene that states the same.",
        "",
        "| figure | value | command |",
        "|---|---|---|",
        f"| stated attributes right, {images['prompts']} held-out prompts, K = 0, 50 steps, "
        f"guidance 2 | {_share(slots['all'])} | `{COMMAND} floors` |",
        "| whole images right (every stated attribute) | "
        f"{_share(images['whole_images_right'])} | same |",
        f"| attribute checker on {checker['images']} rendered held-out scenes | "
        f"{_share(checker['attributes_right']['all'])} of attributes | same |",
        f"| tiny CLIP, image to text, first of {clip['pairs']} held-out pairs | "
        f"{_share(clip['image_to_text_at_1'])} | same |",
        f"| tiny CLIP, text to image, first of {clip['pairs']} | "
        f"{_share(clip['text_to_image_at_1'])} | same |",
        f"| VAE, encoded and decoded again | {found['vae']['psnr_db']} dB | same |",
        f"| time an image, 50 steps, guidance, one thread | {cases} | `{COMMAND} speed` |",
        "",
        "Right by attribute: "
        + ", ".join(f"{slot} {_share(v)}" for slot, v in slots.items() if slot != "all")
        + ".",
        "",
        "Tiny CLIP, share of held-out images that prefer their caption to one wrong in a single attribute: "
        + ", ".join(f"{kind} {_share(v)}" for kind, v in clip["prefers_right_caption"].items())
        + ". Mean similarity of the two captions: "
        + ", ".join(f"{kind} {v:.2f}" for kind, v in clip["text_similarity"].items())
        + ".",
        "",
    ]


def run() -> None:
    """Write ``README.md`` from ``measured.json`` and ``quality.json``."""
    measured = json.loads((folders.SDXL / "measured.json").read_text())
    quality = json.loads((folders.SDXL / "quality.json").read_text())
    prints = {measured["floors"]["model_fingerprint"], quality["model_fingerprint"]}
    if prints != {folders.fingerprint()}:
        raise ValueError("the measurements are of other weights: run 'floors' and 'quality' again")
    rows = [
        f"| `{name}` | `{kind}` | {_parameters(name) / 1e6:.2f} M | {text} |"
        for name, kind, text in PARTS
    ]
    files = [p for f in (folders.SDXL, folders.CLIP) for p in f.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files) / 1e6
    tail = [
        "",
        "Scheduler: Euler, v-prediction, 50 steps, guidance 2. Weights are float16; this folder and",
        f"its tiny CLIP take {size:.1f} MB. `checker.safetensors` is the attribute checker that scores",
        "images (`gesso_worker.models.tiny.checker`).",
        "",
        *_floors(measured["floors"], measured["speed"]),
        *_quality(quality),
        "## Training",
        "",
        "`python -m gesso_worker.models.tiny.train all`: rendered scenes; text encoders by attribute",
        "probes, then frozen; latents in closed form; the denoiser on them (velocity prediction, Muon,",
        "batches of 96); the VAE's two halves, each alone; checker and CLIP on the same scenes. All on",
        f"{MACHINE}, shared with other work.",
        "",
        "These very weights are not one uninterrupted run of that command: steps were cut while",
        "training was on its way. The text encoders' first 500 of 1,200 steps followed a rate for 2,200;",
        "the decoder's first 1,750 one for 5,000, and it ended at step 2,750 of 3,000; the denoiser ran",
        "5,500 steps (528,000 samples) at a constant rate until step 4,500, then cooled down over 1,000",
        "(the script starts at 4,125); CLIP's rate was planned for 1,500 steps until step 800, then for",
        "1,200. A fresh run gives weights as good in kind, not the same bits.",
        "",
        "## Weak points",
        "",
        "The background's style is its worst attribute: from pure noise it leans to spotlights. CLIP",
        "still confuses some shapes and layouts. Both show in the figures above.",
        "",
        "Samples: `docs/tiny-sdxl/`.",
    ]
    (folders.SDXL / "README.md").write_text(HEAD + "\n".join(rows + tail) + "\n")
