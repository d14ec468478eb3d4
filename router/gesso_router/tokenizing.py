"""open_clip's own tokenizer as a server needs it: bounded in memory, and in time whatever a client sends."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

#: Words whose pieces are remembered. A vocabulary has some 49,000 entries.
MOST_WORDS = 32_768
#: Longer words, in bytes, are hardly met twice. open_clip takes the square of a word's length to cut it up:
#: more than half a second for the longest prompt that is allowed.
LONGEST_WORD = 64


def served(tokenizer: Any) -> Any:
    """A tokenizer that gives the same tokens; other kinds than open_clip's SimpleTokenizer as they are."""
    from open_clip import tokenizer as open_clip

    if type(tokenizer) is not open_clip.SimpleTokenizer:
        return tokenizer
    mine = copy.copy(tokenizer)
    mine.bpe = Pieces(tokenizer)
    if mine.clean_fn is open_clip._clean_lower:
        mine.clean_fn = plainly(mine.clean_fn)
    return mine


class Pieces:
    """The pieces of a word, blanks between them, as `SimpleTokenizer.bpe` gives them."""

    def __init__(self, tokenizer: Any) -> None:
        """The merges are those of a SimpleTokenizer, which stays as it is."""
        from tokenizers import models

        self.special = {tokenizer.decoder[i] for i in tokenizer.all_special_ids}
        self.own = copy.copy(tokenizer)
        self.own.cache = {}
        self.long = models.BPE(
            tokenizer.encoder,
            sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__),
            cache_capacity=0,
            end_of_word_suffix="</w>",
        )
        self.short = lru_cache(MOST_WORDS)(self._short)

    def __call__(self, word: str) -> str:
        """Of a word as bytes that are written as letters (`SimpleTokenizer.byte_encoder`)."""
        if word in self.special:
            return word
        if len(word) <= LONGEST_WORD:
            return self.short(word)
        return " ".join([piece.value for piece in self.long.tokenize(word)])

    def _short(self, word: str) -> str:
        pieces: str = self.own.bpe(word)
        self.own.cache.clear()  # it would keep every word for ever
        return pieces


def plainly(clean: Callable[[str], str]) -> Callable[[str], str]:
    """open_clip's cleaning of texts; it leaves out what printable ASCII without entities has no use for.

    That is ftfy's search for wrong encodings, control characters and odd quotes, and HTML's entities.
    """

    def cleaned(text: str) -> str:
        if text.isascii() and text.isprintable() and "&" not in text:
            return " ".join(text.split()).lower()
        return clean(text)

    return cleaned
