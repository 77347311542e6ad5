"""Do speech and text of one sentence meet? Retrieval of each by the other, layer by layer (arXiv 2304.14514 §4).

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

from isogloss.data.loading import language_of, text_of, waveform
from isogloss.errors import IsoglossError
from isogloss.metrics.retrieval import Retrieval, pools, retrieval
from isogloss.model.model import Model
from isogloss.model.space import Vectors, embed_speech, embed_text
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Scores = NDArray[np.float64]


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


def retrieve(model: Model, cuts: list[MonoCut], size: int = 1000, resamples: int = 5, seed: int = 0) -> list[Row]:
    """All rows for the transcribed clips, one clip a sentence; raises IsoglossError where there is no such clip."""
    chosen = _one_a_sentence(cuts)
    if not chosen:
        raise IsoglossError("Retrieval needs transcribed clips; the data hold none.")
    model.eval()
    shared = range(model.text_encoder.entry, model.encoder.layers + 1)
    speech, text = _both(model, chosen, shared)
    torch.manual_seed(seed)
    random = Model(model.config, model.tokenizer).to(next(model.parameters()).device).eval()
    blind = _both(random, chosen, shared[-1:])
    drawn = pools(len(chosen), size, resamples, seed)
    shuffled = np.random.default_rng(seed).permutation(len(chosen))
    last = shared[-1]
    scores = {f"block {layer}": _cosine(speech, text, layer) for layer in shared}
    scores["random weights"] = _cosine(*blind, last)
    scores["shuffled pairs"] = scores[f"block {last}"][:, shuffled]
    scores["length alone"] = -np.abs(speech.frames.numpy()[:, None] - text.frames.numpy()[None]).astype(np.float64)
    scores["chance"] = np.zeros((len(chosen), len(chosen)))
    return [row for way, table in scores.items() for row in _rows(way, table, drawn)]


def _rows(way: str, scores: Scores, drawn: list[NDArray[np.int64]]) -> Iterator[Row]:
    """Text found by speech, and speech by text."""
    for direction, table in (("speech → text", scores), ("text → speech", scores.T)):
        yield Row(way, direction, tuple(retrieval(table[np.ix_(pool, pool)]) for pool in drawn))


def _both(model: Model, cuts: list[MonoCut], layers: range) -> tuple[Vectors, Vectors]:
    """Vectors of the clips and of their sentences."""
    _, speech = embed_speech(model, [waveform(cut) for cut in cuts], layers)
    texts = [text_of(cut) or "" for cut in cuts]
    return speech, embed_text(model, texts, [language_of(cut) for cut in cuts], layers)


def _cosine(speech: Vectors, text: Vectors, layer: int) -> Scores:
    scores: Scores = (speech.layers[layer] @ text.layers[layer].T).double().numpy()
    return scores


def _one_a_sentence(cuts: list[MonoCut]) -> list[MonoCut]:
    """The first clip of each sentence, at most 30 s long, so that each is one piece."""
    found: dict[tuple[str, str], MonoCut] = {}
    for cut in sorted(cuts, key=lambda cut: cut.id):
        said = normalise(text_of(cut) or "", language_of(cut))
        if said and cut.duration <= 30:
            found.setdefault((language_of(cut), said), cut)
    return list(found.values())
