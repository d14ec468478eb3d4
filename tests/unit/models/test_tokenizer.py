"""The three tokenizers agree with each other and with the ids that training used."""

import numpy as np
import pytest

from gesso_worker.models.tiny import captions, folders, scenes, tokenizer


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(3)
    return [captions.caption(scenes.sample_scene(rng), rng) for _ in range(100)]


@pytest.mark.parametrize(
    ("name", "pad"), [("tokenizer", tokenizer.PAD_1), ("tokenizer_2", tokenizer.PAD_2)]
)
def test_transformers_reads_the_ids_of_training(name: str, pad: int, texts: list[str]) -> None:
    from transformers import CLIPTokenizer

    tok = CLIPTokenizer.from_pretrained(folders.SDXL / name)
    assert tok.model_max_length == tokenizer.POSITIONS
    for text in texts:
        ids = tok(text, padding="max_length", max_length=32, truncation=True).input_ids
        assert ids == tokenizer.encode(text, pad)
        assert tok.decode(ids, skip_special_tokens=True).rstrip("! ") == text.replace(",", " ,")


def test_open_clip_reads_the_same_ids(texts: list[str]) -> None:
    from gesso_worker.models.tiny import clip_model

    _, tok = clip_model.load()
    assert tok(texts).tolist() == [tokenizer.encode(text) for text in texts]


def test_every_word_is_one_token() -> None:
    ranks = {pair: i for i, pair in enumerate(tokenizer.MERGES)}
    for word in captions.words():
        assert tokenizer.apply_merges(word, ranks) == [word + "</w>"]


def test_a_long_prompt_of_unknown_words_is_cut_not_refused() -> None:
    from transformers import CLIPTokenizer

    tok = CLIPTokenizer.from_pretrained(folders.SDXL / "tokenizer")
    ids = tok("Ünknown wörds " * 30, padding="max_length", truncation=True).input_ids
    assert len(ids) == tokenizer.POSITIONS
    assert ids[-1] == tokenizer.EOS
