"""Part ``sheets``: contact sheets of held-out prompts, and of what skipped steps do to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gesso_worker.models.tiny import captions, renderer, scenes
from gesso_worker.models.tiny.evaluate import floors
from gesso_worker.models.tiny.evaluate.quality import LADDER
from gesso_worker.models.tiny.sampling import Parts

FOLDER: Final = Path(__file__).parents[5] / "docs" / "tiny-sdxl"
COLUMNS: Final = 10
PROMPTS: Final = 60
ZOOM: Final = 2
TILE: Final = 64 * ZOOM
MARGIN: Final = 250
A_TEXT: Final = "a large red star above a small blue ring on a green background"
#: Rows of the sheet over K: kind of change, and the prompt that comes after ``A_TEXT``.
ROWS: Final = (
    ("the same prompt", A_TEXT),
    ("background", "a large red star above a small blue ring on a yellow background"),
    ("style", "a large red star above a small blue ring on a green gradient"),
    ("colour", "a large white star above a small blue ring on a green background"),
    ("texture", "a large striped red star above a small blue ring on a green background"),
    ("size", "a small red star above a small blue ring on a green background"),
    ("shape", "a large red cross above a small blue ring on a green background"),
    ("layout", "a large red star to the left of a small blue ring on a green background"),
    ("unrelated", "three yellow squares on a purple background"),
)


def tile(images: np.ndarray[Any, Any], columns: int) -> Image.Image:
    """Images uint8 (n, 64, 64, 3) in rows, each pixel twice as large."""
    rows = -(-len(images) // columns)
    sheet = np.full((rows * 64, columns * 64, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        sheet[y * 64 : (y + 1) * 64, x * 64 : (x + 1) * 64] = image
    return Image.fromarray(sheet).resize((columns * TILE, rows * TILE), Image.Resampling.NEAREST)


def prompts_sheet(parts: Parts) -> None:
    """Sixty held-out prompts at K = 0, unselected, and their texts."""
    _, texts = floors.held_out(PROMPTS)
    images = floors.generate(parts, texts, range(PROMPTS), "sheet")
    tile(images, COLUMNS).save(FOLDER / "held-out-prompts.png")
    lines = ["# Held-out prompts", "", "![the images, row by row](held-out-prompts.png)", ""]
    lines += [f"{i + 1}. {text}" for i, text in enumerate(texts)]
    (FOLDER / "held-out-prompts.md").write_text("\n".join(lines) + "\n")


def ladder_sheet(parts: Parts) -> None:
    """A's image, then B resumed from A's latents at each K; a row for each kind of change."""
    texts = [text for _, text in ROWS]
    prompts = parts.encode(texts)
    first = parts.encode([A_TEXT])
    run = parts.denoise(first, parts.noise([4]), keep=LADDER[1:])
    columns = [np.repeat(parts.decode(run.latents), len(ROWS), axis=0)]
    for k in LADDER:
        start = run.kept[k].expand(len(ROWS), -1, -1, -1) if k else parts.noise([5] * len(ROWS))
        columns.append(parts.decode(parts.denoise(prompts, start, skip=k).latents))
    images = np.stack(columns, 1).reshape(-1, 64, 64, 3)
    body = tile(images, len(columns))
    sheet = Image.new("RGB", (MARGIN + body.width, 28 + body.height), "white")
    sheet.paste(body, (MARGIN, 28))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, head in enumerate(("A", *(f"B, K = {k}" for k in LADDER))):
        draw.text((MARGIN + i * TILE + TILE // 2, 14), head, "black", font, anchor="mm")
    for i, (kind, text) in enumerate(ROWS):
        y = 28 + i * TILE + 24
        draw.text((8, y), kind, "black", font)
        for j, line in enumerate(wrap(text, 36)):
            draw.text((8, y + 24 + 15 * j), line, "grey", ImageFont.load_default(12))
    sheet.save(FOLDER / "skipped-steps.png")


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def scenes_sheet() -> None:
    """Rendered scenes of the training distribution."""
    rng = np.random.default_rng(3)
    drawn = [scenes.sample_scene(rng) for _ in range(PROMPTS)]
    images = np.stack([renderer.render(scene, rng) for scene in drawn])
    tile(images, COLUMNS).save(FOLDER / "scenes.png")
    lines = [
        "# Scenes of the grammar, rendered",
        "",
        "![rendered scenes, row by row](scenes.png)",
        "",
    ]
    lines += [f"{i + 1}. {captions.caption(scene, rng)}" for i, scene in enumerate(drawn)]
    (FOLDER / "scenes.md").write_text("\n".join(lines) + "\n")


def run() -> None:
    """Write all sheets."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    scenes_sheet()
    parts = Parts.load()
    prompts_sheet(parts)
    ladder_sheet(parts)
