"""`TextProcessor`: texts as the symbols that heads predict, and as the units that the text encoder takes.

    text ─ normalise ─┬─ tokenizer ──> symbols (B, U)      ids 1 … V-1; 0 is the blank
                      └─ espeak-ng ──> phonemes (B, P)     ids 1 … of the inventory; 0 is the blank
"""

from collections.abc import Iterable
from typing import Literal

import torch

from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence
from isogloss.text.espeak import phonemes as pronounce
from isogloss.text.normalise import normalise
from isogloss.text.tokenizers import Tokenizer

Units = Literal["symbols", "bytes", "latin", "phonemes"]


class TextProcessor:
    """Tokenizer and phoneme inventory of a model, either of which may be missing.

    inventory: the IPA characters that have an id, in order. units: what the text encoder takes, as in its
    configuration; all but `phonemes` are the tokenizer's symbols.
    """

    def __init__(self, tokenizer: Tokenizer | None, phonemes: tuple[str, ...] = (), units: Units = "symbols"):
        self.tokenizer = tokenizer
        self.inventory = phonemes
        self.units = units
        self._ids = {symbol: number for number, symbol in enumerate(phonemes, start=1)}
        self._pronounced: dict[tuple[str, str], list[int]] = {}

    def tokens(self, text: str, language: str | None = None) -> list[int]:
        """A transcript as symbols, after normalisation."""
        return self._needed().encode(normalise(text, language))

    def symbols(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Transcripts as symbols, (B, U) int64; None is an empty one."""
        rows = [self.tokens(text or "", tag) for text, tag in zip(texts, languages, strict=True)]
        return Sequence.from_list([torch.tensor(row, dtype=torch.int64) for row in rows])

    def phonemes(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Transcripts as phonemes, (B, P) int64; those outside the inventory are left out.

        Raises IsoglossError for a language whose rules espeak-ng does not know, and for none. Several threads may
        call it: what is remembered is only ever added to, and two that miss the same text find the same phonemes.
        """
        said = [(normalise(text or "", tag), tag or "und") for text, tag in zip(texts, languages, strict=True)]
        if any(tag == "und" for _, tag in said):
            raise IsoglossError("The text encoder of this model takes phonemes; name the language of the text.")
        new: dict[str, list[str]] = {}
        for text, tag in dict.fromkeys(said):
            if (text, tag) not in self._pronounced:
                new.setdefault(tag, []).append(text)
        for tag, group in new.items():
            for text, line in zip(group, pronounce(group, tag), strict=True):
                self._pronounced[text, tag] = [self._ids[symbol] for symbol in line if symbol in self._ids]
        return Sequence.from_list([torch.tensor(self._pronounced[key], dtype=torch.int64) for key in said])

    def unit_ids(self, texts: Iterable[str | None], languages: Iterable[str | None]) -> Sequence:
        """Texts as the text encoder takes them, (B, U) int64: phonemes or symbols."""
        return (self.phonemes if self.units == "phonemes" else self.symbols)(texts, languages)

    def unit_name(self, unit: int) -> str:
        """A unit of the text encoder as it is spelled."""
        return self.ipa([unit]) if self.units == "phonemes" else self._needed().decode([unit])

    def spelling(self) -> list[bytes]:
        """The UTF-8 bytes of every unit of the text encoder; none for the blank."""
        if self.units == "phonemes":
            return [b"", *(symbol.encode() for symbol in self.inventory)]
        return self._needed().spelling()

    def ipa(self, ids: Iterable[int]) -> str:
        """Phonemes in the International Phonetic Alphabet."""
        return "".join(self.inventory[phoneme - 1] for phoneme in ids)

    def _needed(self) -> Tokenizer:
        """The tokenizer; raises IsoglossError where there is none."""
        if self.tokenizer is None:
            raise IsoglossError("This model has no tokenizer: it was pre-trained on speech alone; fine-tune it first.")
        return self.tokenizer
