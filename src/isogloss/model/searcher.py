"""How a model's texts are searched for: with which language model, hotwords and width."""

from __future__ import annotations

from collections.abc import Sequence as ListOf
from functools import cached_property
from pathlib import Path

import torch

from isogloss.decoding.beam import Beam
from isogloss.decoding.hotwords import Hotwords
from isogloss.errors import IsoglossError
from isogloss.heads.ctc import CTCHead
from isogloss.model.engine import Engine
from isogloss.model.folder import LANGUAGE_MODEL
from isogloss.model.model import Model
from isogloss.text.ngram import NGram, load_ngram
from isogloss.text.tokenizers import digest

CTC_BONUS = 1.0
"""Of the released model and the demo's: a half has 4 and 1 % more errors (relative, 144 and 120 clips)."""


class Searcher:
    """A model with adapters of it, on a device, and the folder it is from: what `Recogniser` is built on."""

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        adapted: ListOf[Model] = (),
    ):
        self.engine = Engine(model, device, adapted)
        self.folder = folder

    @property
    def model(self) -> Model:
        """The model, without adapters of other folders."""
        return self.engine.model

    @cached_property
    def language_model(self) -> NGram | None:
        """The n-gram model in the model's folder; None without one, and where adapters write other symbols."""
        if self.folder is None or not (self.folder / LANGUAGE_MODEL).is_dir() or self._other_symbols:
            return None
        return load_ngram(self.folder / LANGUAGE_MODEL, digest(self.folder))

    def search(
        self,
        width: int | None = None,
        *,
        most: int = 1,
        language_model: Path | None = None,
        weight: float = Beam.weight,
        hotwords: ListOf[str] = (),
    ) -> Beam | None:
        """`beam` where something asks for it: a language model, be it the model's own, hotwords, several texts.

        None where nothing does, and for a width of 1 if only the model's own language model does: what is said is
        then decided frame by frame.
        """
        asked = language_model is not None or bool(hotwords) or most > 1
        if width is None:
            width = Beam.width if asked or self.language_model else 1
        if width == 1 and not asked:
            return None
        return self.beam(max(width, most), most=most, language_model=language_model, weight=weight, hotwords=hotwords)

    def beam(
        self,
        width: int = Beam.width,
        *,
        most: int = 1,
        language_model: Path | None = None,
        weight: float = Beam.weight,
        bonus: float | None = None,
        hotwords: ListOf[str] = (),
        hotword_bonus: float = 1.5,
    ) -> Beam:
        """A search for `transcribe`: slower than deciding frame by frame, and it may know the language.

        width: texts that go on from step to step; most: texts to return. language_model: a folder made by
        `isogloss lm` for this model, by default the model's own if it has one, of this weight; bonus: nats a symbol,
        against its wish for short texts, by default `bonus_for` the model. hotwords: words likelier to be said than
        the model thinks, by so many nats a symbol.
        """
        if width < 1:
            raise IsoglossError(f"A beam of {width} holds nothing; give 1 or more.")
        known = self.language_model if language_model is None else self._given(language_model)
        words = [self.model.processor.tokens(word) for word in hotwords]
        for word, tokens in zip(hotwords, words, strict=True):
            if not tokens:
                raise IsoglossError(f'The hotword "{word}" has no letters.')
        favoured = Hotwords(words, hotword_bonus) if words else None
        if bonus is None:
            bonus = bonus_for(self.model)
        bonus = bonus if known else 0.0
        return Beam(width, most=most, language_model=known, weight=weight, bonus=bonus, hotwords=favoured)

    def _given(self, folder: Path) -> NGram:
        """A language model of the user's; raises IsoglossError where it does not suit the model."""
        if self.folder is None:
            raise IsoglossError("A language model needs a recogniser that was loaded from a folder.")
        if self._other_symbols:
            raise IsoglossError("A language model knows the symbols of one model; leave out adapters with others.")
        return load_ngram(folder, digest(self.folder))

    @property
    def _other_symbols(self) -> bool:
        """Whether adapters write other symbols than the model."""
        return any(other.tokenizer is not self.model.tokenizer for other in self.engine.adapted)


def bonus_for(model: Model) -> float:
    """Nats a symbol that a search with a language model should add, for the first of the model's decoders."""
    return CTC_BONUS if isinstance(model.decoder(), CTCHead) else Beam.bonus
