"""The tokenizer that embeds for long: the same tokens as open_clip's, and a bound on what it remembers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso import torchvision_shim
from gesso_router import tokenizing
from gesso_router.tokenizing import served

torchvision_shim.install()  # before open_clip
import open_clip  # noqa: E402

OWN: Any = open_clip.SimpleTokenizer()
SERVED: Any = served(OWN)
#: Pieces on which cleaning could differ: entities, damage, white space, specials, contractions.
PIECES = st.sampled_from(
    (
        *(" ", "  ", "\t", "\n", "\x1b[31m", "\x00", "\x7f", "&amp;", "&amp;lt;", "&", "<", ">"),
        *(
            "it's",
            "WE'LL",
            "'",
            '"',
            "`",
            "\u201c",
            "\u2026",
            "caf\u00e9",
            "\u00c3\u00a9",
            "\ufb01",
        ),
        *("<start_of_text>", "<end_of_text>", "A red star", "4k", "--ar 16:9", "(detailed:1.2)"),
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_tokens_are_those_of_open_clip(text: str) -> None:
    assert SERVED([text]).equal(OWN([text]))


def test_plain_text_is_not_searched_for_damage() -> None:
    searched: list[str] = []
    cleaned = tokenizing.plainly(lambda text: searched.append(text) or "")
    assert cleaned("  A  red STAR ") == "a red star"
    assert not searched
    for text in ("caf\u00e9", "&amp;", "a\tb", "\x1b[31m"):
        cleaned(text)
    assert searched == ["caf\u00e9", "&amp;", "a\tb", "\x1b[31m"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "MOST_WORDS", 20)
    tokenizer = served(OWN)
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}q" for i in range(100)]
    for word in words:
        assert tokenizer([word]).equal(OWN([word]))
    assert tokenizer.bpe.short.cache_info().currsize == 20
    assert not tokenizer.bpe.own.cache


@settings(max_examples=100, deadline=None)
@given(
    st.text("abcdeilnorstu", min_size=65, max_size=300)
    | st.text(st.characters(categories=("L",)), min_size=65, max_size=200)
    | st.text("ab", min_size=65, max_size=300)
)
def test_long_words_are_cut_as_by_open_clip(word: str) -> None:
    assert SERVED.encode(word) == OWN.encode(word)


def test_no_long_word_is_cut_in_the_square_of_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []
    monkeypatch.setattr(
        open_clip.SimpleTokenizer, "bpe", lambda self, word: cut.append(word) or "a"
    )
    tokenizer = served(OWN)
    tokenizer([f"{'xkcd' * 1000} star"])
    assert cut == ["star"]


def test_other_tokenizers_stay_as_they_are() -> None:
    class Other(open_clip.SimpleTokenizer):
        """Not open_clip's own."""

    other = object.__new__(Other)
    assert served(other) is other
