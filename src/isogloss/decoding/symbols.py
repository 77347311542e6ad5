"""Which symbols may be written after which: those of an alphabet, and in any one word letters of one script."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from collections.abc import Sequence as ListOf

import torch
from torch import Tensor

from isogloss.text.scripts import scripts

APOSTROPHES = "'’ʼ"
EAST_ASIAN = {"Han", "Hiragana", "Katakana", "Hangul", "Bopomofo"}
"""Scripts that are written side by side, also within a word."""


class Symbols:
    """An automaton over symbols. Its state is the script of the word being written; 0 before the word's first letter.

    follows: (states, V) bool, the symbols that may come next; those of state 0 are all that may be written at all,
    blank among them. after: (states, V) int64, the state that a symbol leads to.
    """

    def __init__(self, follows: Tensor, after: Tensor):
        self.follows = follows
        self.after = after
        # Searches ask symbol by symbol, for which tensors are slow.
        self._follows: list[list[bool]] = follows.tolist()
        self._after: list[list[int]] = after.tolist()

    @classmethod
    def only(cls, allowed: Tensor) -> Symbols:
        """Certain symbols, (V,) bool, in any order."""
        return cls(allowed[None], torch.zeros_like(allowed, dtype=torch.int64)[None])

    @classmethod
    def one_script(cls, spelling: ListOf[bytes], allowed: Collection[int] | None = None) -> Symbols:
        """One script a word. spelling: of each symbol in UTF-8; what is part of a character has no script.
        allowed: ids of the symbols that may be written beside blank, id 0; all if not given.
        """
        texts = [piece.decode("utf-8", errors="replace") for piece in spelling]
        written = [_script(text) for text in texts]
        states = {name: state for state, name in enumerate(sorted({name for name in written if name}), start=1)}
        permitted = torch.tensor([not number or allowed is None or number in allowed for number in range(len(texts))])
        follows = permitted.repeat(1 + len(states), 1)
        after = torch.arange(1 + len(states))[:, None].repeat(1, len(texts))
        for number, (text, name) in enumerate(zip(texts, written, strict=True)):
            opens, closes = text[:1] and not _joins(text[0]), text[-1:] and not _joins(text[-1])
            if name and not opens:
                follows[[state for state in range(1, 1 + len(states)) if state != states[name]], number] = False
            if closes:
                after[:, number] = 0
            elif name:
                after[:, number] = states[name]
            elif opens:
                after[:, number] = 0
        return cls(follows, after)

    @property
    def allowed(self) -> Tensor:
        """(V,) bool, the symbols that may be written somewhere."""
        return self.follows[0]

    def to(self, device: torch.device | str) -> Symbols:
        """The same on a device."""
        return Symbols(self.follows.to(device), self.after.to(device))

    def may_follow(self, state: int, symbol: int) -> bool:
        """Whether a symbol may come next."""
        return self._follows[state][symbol]

    def step(self, state: int, symbol: int) -> int:
        """The state after another symbol."""
        return self._after[state][symbol]


def limited(scores: Tensor, symbols: Symbols | None, states: Tensor | None = None) -> Tensor:
    """Scores (…, V) with -inf for what may not be written: at all, or in these states, (…)."""
    if symbols is None:
        return scores
    return scores.masked_fill(~(symbols.allowed if states is None else symbols.follows[states]), -torch.inf)


def _joins(character: str) -> bool:
    """Whether a word goes on behind it: letters, their marks, apostrophes and what is part of a character."""
    return unicodedata.category(character)[0] in "LM" or character in APOSTROPHES or character == "\ufffd"


def _script(text: str) -> str | None:
    """The script of a text, None where it has none or several."""
    found = {"East Asian" if name in EAST_ASIAN else name for name in scripts(text)} - {"Unknown"}
    return found.pop() if len(found) == 1 else None
