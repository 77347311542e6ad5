"""What belongs together: clips and what they say, in their own language and in others, and the vectors of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize as to_unit_length

from isogloss.audio.reading import Audio
from isogloss.data.manifests import concept_of, language_of, text_of, translations_of
from isogloss.evaluation.data import Clip, Data, Key, key_of, said_in
from isogloss.model.model import Model
from isogloss.model.pieces import LONGEST
from isogloss.model.space import embed_speech, embed_text
from isogloss.text.corpus import TextLine
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Scores = NDArray[np.float64]
Pair = tuple["MonoCut", "MonoCut | TextLine"]
"""A clip, and what belongs to it: a clip or a sentence, of all pairs alike."""


def own(cuts: list[MonoCut]) -> list[Pair]:
    """Transcribed clips and their sentences; the first clip of each."""
    return [(cut, TextLine(text_of(cut) or "", language_of(cut), "own")) for cut in _one_a_sentence(cuts)]


def translated(cuts: list[MonoCut], language: str) -> list[Pair]:
    """Clips and what they say in another language, where the corpus tells it; one clip a sentence of either."""
    pairs: dict[str, Pair] = {}
    for cut in _one_a_sentence(cuts):
        text = translations_of(cut).get(language, "")
        if language_of(cut) != language and (said := normalise(text, language)):
            pairs.setdefault(said, (cut, TextLine(text, language, "translation")))
    return list(pairs.values())


def spoken_too(cuts: list[MonoCut], language: str) -> list[Pair]:
    """Clips and those that say the same in another language: the same concept, or what the clip is translated to."""
    spoken: dict[str, MonoCut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        if language_of(cut) == language and cut.duration <= LONGEST:
            spoken.setdefault(concept_of(cut) or said_in(cut), cut)
    pairs: dict[str, Pair] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        said = concept_of(cut) or normalise(translations_of(cut).get(language, ""), language)
        if said and said in spoken and language_of(cut) != language and cut.duration <= LONGEST:
            pairs.setdefault(said, (cut, spoken[said]))
    return list(pairs.values())


@dataclass(frozen=True)
class Space:
    """Vectors of length 1 by layer, (D,) each, and frames, of clips (by key) and sentences."""

    vectors: dict[Key | TextLine, dict[int, Tensor]] = field(default_factory=dict)
    frames: dict[Key | TextLine, int] = field(default_factory=dict)

    def add(self, name: Key | TextLine, vectors: dict[int, Tensor], frames: Tensor) -> None:
        """What was encoded, by layer, and its frames; vectors may have any length."""
        self.vectors[name] = {layer: to_unit_length(vector, dim=0) for layer, vector in vectors.items()}
        self.frames[name] = int(frames.sum())

    @property
    def layers(self) -> list[int]:
        """The blocks after which vectors were taken."""
        return sorted(next(iter(self.vectors.values()), {}))

    def holds(self, pair: Pair) -> bool:
        """Whether there are vectors of both sides; there are none of a clip that is broken or silent."""
        return all(_name(side) in self.vectors for side in pair)

    def scores(self, pairs: Sequence[Pair], layer: int) -> Scores:
        """(N, N) cosines of N clips and N counterparts."""
        clips = torch.stack([self.vectors[_name(clip)][layer] for clip, _ in pairs])
        others = torch.stack([self.vectors[_name(other)][layer] for _, other in pairs])
        scores: Scores = (clips @ others.T).double().numpy()
        return scores

    def lengths(self, pairs: Sequence[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frames of both sides, (N,) each."""
        both = np.array([[self.frames[_name(side)] for side in pair] for pair in pairs])
        return both[:, 0], both[:, 1]


def encode_pairs(models: Sequence[tuple[Model, range]], pairs: Iterable[Pair], data: Data) -> list[Space]:
    """Everything that is in pairs, read once and encoded once by each of the models, after blocks of its range."""
    sides = [side for pair in pairs for side in pair]
    cuts = {key_of(side): side for side in sides if not isinstance(side, TextLine)}
    lines = list(dict.fromkeys(side for side in sides if isinstance(side, TextLine)))
    spaces = [Space() for _ in models]
    for clips in data.read(list(cuts.values())):
        for (model, layers), space in zip(models, spaces, strict=True):
            _add_clips(space, model, layers, clips)
    if lines:
        texts, languages = [line.text for line in lines], [line.language for line in lines]
        for (model, layers), space in zip(models, spaces, strict=True):
            vectors = embed_text(model, texts, languages, layers)
            for place, line in enumerate(lines):
                found = {layer: values[place] for layer, values in vectors.layers.items()}
                space.add(line, found, vectors.frames[place])
    return spaces


def _add_clips(space: Space, model: Model, layers: range, clips: list[Clip]) -> None:
    waveforms: list[Audio] = [samples for _, samples in clips]
    pieces, vectors = embed_speech(model, waveforms, layers, [language_of(cut) for cut, _ in clips])
    for number, (cut, _) in enumerate(clips):
        own_pieces = vectors[[place for place, piece in enumerate(pieces) if piece.owner == number]]
        if len(own_pieces.frames):
            together = {layer: own_pieces.frames.float() @ values for layer, values in own_pieces.layers.items()}
            space.add(key_of(cut), together, own_pieces.frames)


def _name(side: MonoCut | TextLine) -> Key | TextLine:
    return side if isinstance(side, TextLine) else key_of(side)


def _one_a_sentence(cuts: list[MonoCut]) -> list[MonoCut]:
    """The first clip of each sentence."""
    chosen: dict[tuple[str, str], MonoCut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        said = said_in(cut)
        if said and cut.duration <= LONGEST:
            chosen.setdefault((language_of(cut), said), cut)
    return list(chosen.values())
