"""Do speech and text of one sentence meet? Retrieval of each by the other, layer by layer (arXiv 2304.14514 §4).

    own            a clip, and its sentence
    translated     a clip, and what it says in another language
    spoken_too     a clip, and a clip that says the same in another language

Speech is unmasked and read whole, text is stretched by predicted durations; mean states, cosine. Every sentence is in a
pool once. Beside each layer stand what proves nothing: chance, shuffled pairs, the same network with random weights,
and the length alone, for the mean state may tell how long something takes to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from isogloss.data.loading import waveform
from isogloss.data.manifests import concept_of, language_of, text_of, translations_of
from isogloss.errors import IsoglossError
from isogloss.metrics.retrieval import Retrieval, pools, retrieval
from isogloss.model.model import Model
from isogloss.model.space import Vectors, embed_speech, embed_text
from isogloss.text.corpus import TextLine
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Scores = NDArray[np.float64]
Pair = tuple["MonoCut", "MonoCut | TextLine"]
"""A clip, and what belongs to it: a clip or a sentence, of all pairs alike."""
LONGEST = 30.0
"""Seconds of a clip that is one piece."""


@dataclass(frozen=True)
class Row:
    """One way to compare, in one direction: the figures of each pool."""

    way: str
    direction: str
    pools: tuple[Retrieval, ...]

    def plain(self) -> dict[str, float | str | int]:
        """Means and standard deviations over the pools, in %."""
        figures: dict[str, float | str | int] = {"way": self.way, "direction": self.direction}
        for name, key in (("first", "R@1"), ("five", "R@5"), ("reciprocal", "MRR")):
            values = [100 * getattr(pool, name) for pool in self.pools]
            figures[key] = round(float(np.mean(values)), 1)
            figures[f"± {key}"] = round(float(np.std(values)), 1)
        return figures | {"pool": self.pools[0].queries}


def retrieve(model: Model, pairs: list[Pair], size: int = 1000, resamples: int = 5, seed: int = 0) -> list[Row]:
    """All rows for pairs of clips and what belongs to them; raises IsoglossError where there are none."""
    if not pairs:
        raise IsoglossError("Retrieval needs transcribed clips, or what belongs to them; the data hold none.")
    model.eval()
    shared = range(model.text_encoder.entry, model.encoder.layers + 1)
    clips, others = _both(model, pairs, shared)
    torch.manual_seed(seed)
    random = Model(model.config, model.tokenizer).to(next(model.parameters()).device).eval()
    blind = _both(random, pairs, shared[-1:])
    drawn = pools(len(pairs), size, resamples, seed)
    shuffled = np.random.default_rng(seed).permutation(len(pairs))
    last = shared[-1]
    scores = {f"block {layer}": _cosine(clips, others, layer) for layer in shared}
    scores["random weights"] = _cosine(*blind, last)
    scores["shuffled pairs"] = scores[f"block {last}"][:, shuffled]
    scores["length alone"] = -np.abs(clips.frames.numpy()[:, None] - others.frames.numpy()[None]).astype(np.float64)
    scores["chance"] = np.zeros((len(pairs), len(pairs)))
    kind = "text" if isinstance(pairs[0][1], TextLine) else "other speech"
    directions = f"speech → {kind}", f"{kind} → speech"
    return [row for way, table in scores.items() for row in _rows(way, table, drawn, directions)]


def own(cuts: list[MonoCut]) -> list[Pair]:
    """Transcribed clips and their sentences; the first clip of each."""
    return [(cut, TextLine(text_of(cut) or "", language_of(cut), "own")) for cut in _one_a_sentence(cuts)]


def translated(cuts: list[MonoCut], language: str) -> list[Pair]:
    """Clips and what they say in another language, where the corpus tells it; one clip a sentence of either."""
    found: dict[str, Pair] = {}
    for cut in _one_a_sentence(cuts):
        text = translations_of(cut).get(language, "")
        if language_of(cut) != language and (said := normalise(text, language)):
            found.setdefault(said, (cut, TextLine(text, language, "translation")))
    return list(found.values())


def spoken_too(cuts: list[MonoCut], language: str) -> list[Pair]:
    """Clips and those that say the same in another language: the same concept, or what the clip is translated to."""
    spoken: dict[str, MonoCut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        if language_of(cut) == language and cut.duration <= LONGEST:
            spoken.setdefault(concept_of(cut) or normalise(text_of(cut) or "", language), cut)
    found: dict[str, Pair] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        said = concept_of(cut) or normalise(translations_of(cut).get(language, ""), language)
        if said and said in spoken and language_of(cut) != language and cut.duration <= LONGEST:
            found.setdefault(said, (cut, spoken[said]))
    return list(found.values())


def _rows(way: str, scores: Scores, drawn: list[NDArray[np.int64]], directions: tuple[str, str]) -> Iterator[Row]:
    """There and back."""
    for direction, table in zip(directions, (scores, scores.T), strict=True):
        yield Row(way, direction, tuple(retrieval(table[np.ix_(pool, pool)]) for pool in drawn))


def _both(model: Model, pairs: list[Pair], layers: range) -> tuple[Vectors, Vectors]:
    """Vectors of the clips and of what belongs to them."""
    clips = _heard(model, [cut for cut, _ in pairs], layers)
    lines = [other for _, other in pairs if isinstance(other, TextLine)]
    if lines:
        return clips, embed_text(model, [line.text for line in lines], [line.language for line in lines], layers)
    return clips, _heard(model, [other for _, other in pairs if not isinstance(other, TextLine)], layers)


def _heard(model: Model, cuts: list[MonoCut], layers: range) -> Vectors:
    return embed_speech(model, [waveform(cut) for cut in cuts], layers, [language_of(cut) for cut in cuts])[1]


def _cosine(clips: Vectors, others: Vectors, layer: int) -> Scores:
    scores: Scores = (clips.layers[layer] @ others.layers[layer].T).double().numpy()
    return scores


def _one_a_sentence(cuts: list[MonoCut]) -> list[MonoCut]:
    """The first clip of each sentence."""
    found: dict[tuple[str, str], MonoCut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        said = normalise(text_of(cut) or "", language_of(cut))
        if said and cut.duration <= LONGEST:
            found.setdefault((language_of(cut), said), cut)
    return list(found.values())
