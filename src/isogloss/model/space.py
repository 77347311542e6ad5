"""One space for speech and text: a vector of length 1 for a stretch of speech, and for a sentence.

    states (B, T, D) ─ mean over time ─ / length ─> (B, D)         (arXiv 2304.14514 §4, retrieval)

The states are outputs of blocks that speech and text share, or those in which text enters (`entry`: e_s and ê_t).
"""

from collections.abc import Sequence as ListOf
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from isogloss.audio.reading import Audio
from isogloss.errors import IsoglossError
from isogloss.model.engine import encode
from isogloss.model.model import Model
from isogloss.model.pieces import Piece, Recordings
from isogloss.nn.pooling import mean_over_time
from isogloss.sequence import Sequence
from isogloss.text.tokenizers import UNKNOWN

PAUSE = 2.0
"""Seconds of a pause that parts two stretches of speech, each with a vector of its own."""
TEXTS = 32
"""Sentences that are read at once."""


@dataclass
class Vectors:
    """Vectors by layer, (N, D) each, and the frames of what they stand for, (N,)."""

    layers: dict[int, Tensor]
    frames: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, states: dict[int, Sequence]) -> None:
        """The states of one more batch, (B, T, D) by layer."""
        for layer, found in states.items():
            self.layers[layer] = torch.cat([self.layers[layer], pooled(found).cpu()])
        self.frames = torch.cat([self.frames, found.lengths.cpu()])

    @property
    def last(self) -> Tensor:
        """Those of the deepest layer, (N, D)."""
        return self.layers[max(self.layers)]

    def __getitem__(self, places: list[int]) -> "Vectors":
        return Vectors({layer: values[places] for layer, values in self.layers.items()}, self.frames[places])


@torch.inference_mode()
def embed_speech(
    model: Model,
    audio: list[Audio] | Recordings,
    layers: ListOf[int] = (),
    languages: ListOf[str | None] = (),
    vad: bool = False,
) -> tuple[list[Piece], Vectors]:
    """Recordings in stretches of half a minute at most, and their vectors.

    layers: numbers of blocks; the last one by default. languages: of the recordings, for adapters; none if unknown.
    vad: stretches of speech only, parted by long pauses.
    """
    vectors = _empty(model, layers)
    found: list[Piece] = []
    recordings = audio if isinstance(audio, Recordings) else Recordings(audio, max_pause=PAUSE)
    for group in recordings.speech() if vad else recordings.even(model.framing):
        for pieces, encoded in encode(model, group, tuple(vectors.layers), languages):
            vectors.add(encoded.layers)
            found += pieces
    order = sorted(range(len(found)), key=lambda place: (found[place].owner, found[place].start))
    return [found[place] for place in order], vectors[order]


@torch.inference_mode()
def embed_text(model: Model, texts: list[str], languages: ListOf[str | None], layers: ListOf[int] = ()) -> Vectors:
    """The vectors of sentences in languages that the text encoder knows; raises IsoglossError for an empty one."""
    device = next(model.parameters()).device
    entry = model.text_encoder.entry
    vectors = _empty(model, layers)
    if early := [layer for layer in vectors.layers if layer < entry]:
        raise IsoglossError(f"Text enters after block {entry}; it has no states of block {early[0]}.")
    for start in range(0, len(texts), TEXTS):
        tags = list(languages[start : start + TEXTS])
        units = model.processor.unit_ids(texts[start : start + TEXTS], tags).to(device)
        if not bool(units.lengths.all()):
            empty = texts[start + int(units.lengths.argmin())]
            raise IsoglossError(f"The text {empty!r} is empty after normalisation; nothing can be found by it.")
        read = model.encode_text(units, tags)
        vectors.add(model.encode_shared(read, tuple(vectors.layers)).layers)
    return vectors


def embed_query(model: Model, text: str, language: str | None) -> Vectors:
    """The vector of a sentence to search by; raises IsoglossError too if it is in letters never seen."""
    vectors = embed_text(model, [text], [language])
    units = model.processor.unit_ids([text], [language]).values[0].tolist()
    letters = {model.processor.unit_name(unit) for unit in units}
    if letters <= {" ", UNKNOWN}:
        raise IsoglossError(f"The text {text!r} is in letters that the model has never seen; train it on them.")
    return vectors


def pooled(states: Sequence) -> Tensor:
    """(B, T, D) -> (B, D) float32 of length 1: the mean over time."""
    return normalize(mean_over_time(states), dim=-1)


def _empty(model: Model, layers: ListOf[int]) -> Vectors:
    for layer in layers:
        model.check_layer(layer)
    return Vectors({layer: torch.zeros(0, model.encoder.width) for layer in layers or (model.encoder.layers,)})
