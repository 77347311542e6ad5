"""How near speech and its text lie, block by block and frame by frame, and how well durations are predicted.

The text is stretched by the durations that the recogniser aligns, so that it has the frames of its speech; what lies
in one frame is compared. Beside each figure stands what proves nothing: the same states with frames in another
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isogloss.data.manifests import language_of, text_of
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data, said_in
from isogloss.metrics.similarity import linear_cka
from isogloss.model.alignment import Aligner, align
from isogloss.model.model import Model
from isogloss.sequence import Sequence

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

    from isogloss.model.recogniser import Recogniser

CLIPS = 16
"""Clips that are encoded at once."""
COMPARED = 100
"""Clips that are compared, about."""
LONGEST = 12.0
"""Seconds of a clip that is compared."""


@dataclass(frozen=True)
class Layer:
    """Speech and text after a block.

    cka, shuffled: linear CKA of the frames, in order and out of order. distance: mean squared distance of the two
    states of a frame, over that of two states of any frames. spread: variance of text over variance of speech.
    """

    number: int
    cka: float
    shuffled: float
    distance: float
    spread: float


@dataclass(frozen=True)
class SharedSpace:
    """Figures over the clips whose transcript the recogniser could align.

    durations: frames of each symbol, aligned and predicted, (M, 2). frames: that were compared.
    """

    layers: tuple[Layer, ...]
    durations: Tensor
    clips: int
    aligned: int
    frames: int

    @property
    def duration_error(self) -> float:
        """Mean absolute error of predicted durations, in frames."""
        return float((self.durations[:, 0] - self.durations[:, 1]).abs().mean())

    @property
    def trivial_duration_error(self) -> float:
        """That of the median duration for every symbol."""
        aligned = self.durations[:, 0]
        return float((aligned - aligned.median()).abs().mean())


def why_not_compared(model: Recogniser, data: Data) -> str | None:
    """In a sentence why speech and text of these clips cannot be compared; None if they can."""
    if model.model.text is None:
        return "The model has no text encoder, so that nothing written can be compared with speech."
    if model.model.text.duration is None:
        return "The text encoder does not stretch texts; its states have no frames to compare."
    return None if _comparable(model, data) else "No clip is transcribed in a language that the text encoder knows."


def compare(model: Recogniser, data: Data) -> SharedSpace:
    """Figures of about a hundred clips, evenly spread over the data."""
    cuts = _comparable(model, data)
    return shared_space(model.model, cuts[:: -(-len(cuts) // COMPARED)], data)


def _comparable(model: Recogniser, data: Data) -> list[MonoCut]:
    known = model.model.config.text_languages
    return [cut for cut in data.cuts if language_of(cut) in known and said_in(cut) and cut.duration <= LONGEST]


@torch.inference_mode()
def shared_space(model: Model, cuts: list[MonoCut], data: Data, seed: int = 0) -> SharedSpace:
    """Figures of those of the clips that are transcribed and can be read; `data` reads them, and counts the broken.

    Raises IsoglossError if there are none, and for a model that stretches no text.
    """
    cuts = [cut for cut in cuts if model.processor.tokens(text_of(cut) or "", language_of(cut))]
    if not cuts:
        raise IsoglossError("Speech and text are compared on transcribed clips; the data hold none.")
    if model.text_encoder.duration is None:
        raise IsoglossError("This text encoder does not stretch texts; its states have no frames to compare.")
    model.eval()
    device = next(model.parameters()).device
    numbers = tuple(range(model.text_encoder.entry, model.encoder.layers + 1))
    speech: dict[int, list[Tensor]] = {number: [] for number in numbers}
    text: dict[int, list[Tensor]] = {number: [] for number in numbers}
    lasting, clips, aligned = [], 0, 0
    for batch in (group[start : start + CLIPS] for group in data.read(cuts) for start in range(0, len(group), CLIPS)):
        languages = [language_of(cut) for cut, _ in batch]
        audio = Sequence.from_list([torch.from_numpy(samples) for _, samples in batch]).to(device)
        tokens = model.processor.unit_ids([text_of(cut) for cut, _ in batch], languages).to(device)
        from_speech = model.encode(model.features(audio), numbers, languages=languages)
        found, paths = align(Aligner.of(model, from_speech.final), tokens)
        from_text = model.encode_shared(model.encode_text(tokens, languages, found), numbers, languages)
        for number in numbers:
            speech[number] += _chosen(from_speech.layers[number], paths)
            text[number] += _chosen(from_text.layers[number], paths)
        predicted = model.text_encoder.durations(model.text_encoder.embed(tokens, languages))
        both = [torch.stack(pair, dim=1) for pair in zip(_chosen(found, paths), _chosen(predicted, paths), strict=True)]
        lasting += [pair[1:] for pair in both]  # without the silence before
        clips += len(batch)
        aligned += int(paths.sum())
    if not clips:
        causes = ", ".join(f"{cause} {count}" for cause, count in data.causes.items())
        raise IsoglossError(f"None of the {len(cuts)} clips could be read ({causes}); prepare the data again.")
    if not aligned:
        raise IsoglossError("The recogniser aligned no clip with its transcript: every clip is too short for its text.")
    generator = torch.Generator().manual_seed(seed)
    layers = tuple(_layer(n, torch.cat(speech[n]), torch.cat(text[n]), generator) for n in numbers)
    frames = sum(map(len, speech[numbers[0]]))
    return SharedSpace(layers, torch.cat(lasting).double(), clips, aligned, frames)


def _chosen(states: Sequence, rows: Tensor) -> list[Tensor]:
    """What is not padding in the rows that are True, in float32."""
    return [item.float().cpu() for item, row in zip(states.unpad(), rows.tolist(), strict=True) if row]


def _layer(number: int, speech: Tensor, text: Tensor, generator: torch.Generator) -> Layer:
    """The figures of all frames after a block, (N, D) twice."""
    other = text[torch.randperm(len(text), generator=generator)]
    near, far = ((speech - one).square().mean() for one in (text, other))
    return Layer(
        number=number,
        cka=linear_cka(speech, text),
        shuffled=linear_cka(speech, other),
        distance=float(near / far),
        spread=float(text.var(dim=0).mean() / speech.var(dim=0).mean()),
    )
