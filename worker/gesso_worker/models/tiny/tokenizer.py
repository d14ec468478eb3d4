"""Builds the CLIP tokenizer of the tiny SD-XL: a word of the grammar is one token.

Any other text falls back to bytes.

The same merges serve SD-XL's two tokenizers and open_clip's ``SimpleTokenizer``, with equal token
ids.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gesso_worker.models.tiny import captions

POSITIONS: Final = 32
BOS_TEXT: Final = "<|startoftext|>"
EOS_TEXT: Final = "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """CLIP's 256 printable stand-ins for bytes, in CLIP's order."""
    codes = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = 256
    chars = [chr(code) for code in codes]
    for byte in range(256):
        if byte not in codes:
            chars.append(chr(spare))
            spare += 1
    return chars


def apply_merges(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word of ASCII letters, by rank of merge."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        ranked = [
            (ranks[pair], i) for i, pair in enumerate(itertools.pairwise(parts)) if pair in ranks
        ]
        if not ranked:
            break
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def build_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that make each word one token.

    Each new merge has the lowest priority, so words that are already one token stay so.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(parts := apply_merges(word, ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks)


def build_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id, in CLIP's order: bytes, bytes that end a word, merges, start, end."""
    chars = byte_alphabet()
    tokens = [
        *chars,
        *(char + "</w>" for char in chars),
        *(a + b for a, b in merges),
        BOS_TEXT,
        EOS_TEXT,
    ]
    return {token: i for i, token in enumerate(tokens)}


MERGES: Final = build_merges(captions.words())
VOCABULARY: Final = build_vocabulary(MERGES)
BOS: Final = VOCABULARY[BOS_TEXT]
EOS: Final = VOCABULARY[EOS_TEXT]
#: SD-XL pads its first tokenizer with the end token, its second (and open_clip) with id 0, which is "!".
PAD_1: Final = EOS
PAD_2: Final = 0


def encode(text: str, pad: int = PAD_2) -> list[int]:
    """Ids of a caption of the grammar, padded to 32; for training, where every word is one token."""
    ids = [VOCABULARY[word + "</w>"] for word in text.replace(",", " ,").split()]
    row = [BOS, *ids, EOS]
    if len(row) > POSITIONS:
        raise ValueError(f"{len(row)} tokens do not fit into {POSITIONS}: {text!r}")
    return row + [pad] * (POSITIONS - len(row))


def save_transformers(folder: Path, pad: str) -> None:
    """Writes the files of a transformers ``CLIPTokenizer`` that pads with the token ``pad``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "add_prefix_space": False,
        "bos_token": BOS_TEXT,
        "eos_token": EOS_TEXT,
        "unk_token": EOS_TEXT,
        "pad_token": pad,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": POSITIONS,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {name: config[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


def save_open_clip(path: Path) -> None:
    """Writes the merges as the gzipped file that open_clip's ``SimpleTokenizer(bpe_path=...)`` reads."""
    # No newline at the end: open_clip would take the empty line after it for one more merge.
    text = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in MERGES)])
    # Without a time stamp the file is the same at every export.
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))
