"""Writes the turbo's model card from what was measured."""

from __future__ import annotations

import json
from typing import Any, Final

from gesso_worker.models.tiny import folders

MACHINE: Final = "2 CPU cores (AMD EPYC, AVX-512) shared with other work"
HEAD: Final = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
base_model: tiny-sdxl
---
# Tiny SD-XL turbo

The [tiny SD-XL](../tiny-sdxl/README.md) in 4 steps without guidance, distilled from it: a second, faster model
for Gesso's tests and samples of services with several models. Only the denoiser and its scheduler lie here;
`parts.json` names the model that has the rest. `builtin_path` puts the folder together from links, and stock
diffusers loads it:

```python
from diffusers import StableDiffusionXLPipeline
from gesso.builtin import builtin_path

folder = builtin_path("builtin://tiny-sdxl-turbo")
pipe = StableDiffusionXLPipeline.from_pretrained(folder, variant="fp16", use_safetensors=True)
text = "a large red star above a small blue ring"
pipe(text, num_inference_steps=4, guidance_scale=1.0, height=64, width=64).images[0]
```

Always 4 steps, guidance 1: the teacher's guidance of 2 is built in. Scheduler: Euler, v-prediction, trailing
timesteps, which start at pure noise.

**What its figures do not say.** On scenes as simple as these, with the teacher's noise schedule, four steps
lose next to nothing, even without any distillation (third row): what was distilled is the guidance, which
halves the time again. A large model's turbo is no such free gift: expect a relative quality of about 0.88, as
published for SDXL-Lightning, and measure it.
"""
TRAINING: Final = """
## Training

`python -m gesso_worker.models.tiny.train turbo`: the student starts as the teacher and walks its own four steps
from noise; at each it learns what the teacher does over the same stretch with guidance. First one step of the
teacher's for one of its own, which folds the guidance in; then two for one, progressive distillation. Captions
of 20,000 training scenes, no images. The average that scores best on 200 held-out prompts, none of them of the
table above, is kept.

These very weights are step 200 of a run that was planned for 3,000: 200 steps of 32 walks, all of them of the
first kind. A longer run goes on from its checkpoint, and may do better.

Samples: `docs/tiny-sdxl/turbo.png`, each row of the turbo's above the same prompts by the tiny SD-XL.
"""
NAMES: Final = {
    "turbo": "turbo",
    "tiny": "tiny SD-XL",
    "tiny_in_4_steps": "tiny SD-XL, as few steps, with guidance",
    "tiny_in_4_steps_unguided": "tiny SD-XL, as few steps, without",
}


def _row(name: str, found: dict[str, Any], base: dict[str, Any]) -> str:
    cells = (
        NAMES[name],
        str(found["steps"]),
        f"{found['guidance_scale']:g}",
        f"{100 * found['attributes_right']['all']:.1f} %",
        f"{100 * found['whole_images_right']:.1f} %",
        f"{found['soft_score'] / base['soft_score']:.3f}",
        f"{found['clip_score'] / base['clip_score']:.3f}",
    )
    return "| " + " | ".join(cells) + " |"


def text(measured: dict[str, Any]) -> str:
    """The card of these measurements."""
    quality = measured["quality"]
    base = quality["tiny"]
    rows = [_row(name, quality[name], base) for name in NAMES]
    by_slot = ", ".join(
        f"{slot} {100 * share:.1f} %"
        for slot, share in quality["turbo"]["attributes_right"].items()
        if slot != "all"
    )
    speeds = [
        f"| {s['batch']} | {s['seconds_an_image']['turbo']:.3f} s | {s['seconds_an_image']['tiny']:.3f} s "
        f"| {s['images_per_second_ratio']:.1f} |"
        for s in measured["speed"]
    ]
    lines = [
        "",
        "## Measured",
        "",
        f"On {MACHINE}, one thread, float32 from float16 weights, {measured['prompts']} held-out prompts, "
        "the same seeds:",
        "`python -m gesso_worker.models.tiny.evaluate turbo`. Score and CLIPScore are relative to the tiny "
        "SD-XL in full;",
        f"the standard error of the score is {quality['turbo']['soft_score_sem']:.4f}.",
        "",
        "| model | steps | guidance | attributes right | whole images right | score | CLIPScore |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Right by attribute: {by_slot}.",
        "",
        "Time an image, encode and decode included:",
        "",
        "| batch | turbo | tiny SD-XL | images/s |",
        "|---|---|---|---|",
        *speeds,
        "",
        f"Weights `{measured['model_fingerprint']}`, distilled from `{measured['teacher_fingerprint']}`.",
    ]
    return HEAD + "\n".join(lines) + "\n" + TRAINING


def run() -> None:
    """Write ``README.md`` from ``measured.json``. Raises ValueError where that is of other weights."""
    measured = json.loads((folders.TURBO / "measured.json").read_text())
    known = (measured["model_fingerprint"], measured["teacher_fingerprint"])
    if known != (folders.fingerprint(folders.TURBO), folders.fingerprint()):
        raise ValueError("the measurements are of other weights: run 'turbo' again")
    (folders.TURBO / "README.md").write_text(text(measured))
