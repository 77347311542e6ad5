"""Which symbols may be written after which: those of an alphabet, and in any one word letters of one script."""

from __future__ import annotations

import copy
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
    def one_script(cls, spelling: ListOf[bytes], allowed: Collection[int] | None = None) -> Symbols:
        """One script a word. spelling: of each symbol in UTF-8; what is part of a character has no script.
        allowed: ids of the symbols that may be written beside blank, id 0; all if not given.
        """
        permitted = [not number or allowed is None or number in allowed for number in range(len(spelling))]
        texts = [
            piece.decode("utf-8", errors="replace") if may else ""
            for piece, may in zip(spelling, permitted, strict=True)
        ]
        written = [_script(text) for text in texts]
        names = sorted({name for name in written if name})
        # Where there is one script, or none, there is nothing to keep apart.
        numbers = {name: number for number, name in enumerate(names, start=1)} if len(names) > 1 else {}
        scripts = torch.tensor([numbers.get(name or "", 0) for name in written])
        opens = torch.tensor([bool(text) and not _joins(text[0]) for text in texts])
        closes = torch.tensor([bool(text) and not _joins(text[-1]) for text in texts])
        states = torch.arange(1 + len(numbers))[:, None]
        follows = torch.tensor(permitted) & (opens | (scripts == 0) | (states == 0) | (scripts == states))
        after = torch.where(closes, 0, torch.where(scripts > 0, scripts, torch.where(opens, 0, states)))
        return cls(follows, after)

    def to(self, device: torch.device | str) -> Symbols:
        """The same on a device."""
        moved = copy.copy(self)
        moved.follows, moved.after = self.follows.to(device), self.after.to(device)
        return moved

    def may_follow(self, state: int, symbol: int) -> bool:
        """Whether a symbol may come next."""
        return self._follows[state][symbol]

    def step(self, state: int, symbol: int) -> int:
        """The state after another symbol."""
        return self._after[state][symbol]


def limited(scores: Tensor, symbols: Symbols | None, states: Tensor | int = 0) -> Tensor:
    """Scores (…, V) with -inf for what may not be written in a state, or in states (…); in 0 what may not at all."""
    return scores if symbols is None else scores.masked_fill(~symbols.follows[states], -torch.inf)


def _joins(character: str) -> bool:
    """Whether a word goes on behind it: letters, their marks, apostrophes and what is part of a character."""
    return unicodedata.category(character)[0] in "LM" or character in APOSTROPHES or character == "\ufffd"


def _script(text: str) -> str | None:
    """The script of a text, None where it has none or several."""
    found = {"East Asian" if name in EAST_ASIAN else name for name in scripts(text)} - {"Unknown"}
    return found.pop() if len(found) == 1 else None
