"""Clips to look at and listen to: chosen by rule, what is said and what was written aligned, audio inlined."""

import base64
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.data.loading import waveform
from isogloss.data.manifests import read_cuts
from isogloss.errors import AudioError, IsoglossError
from isogloss.evaluation.data import key_of
from isogloss.evaluation.predictions import Prediction, errors
from isogloss.evaluation.results import Evaluation

LONGEST = 12.0
"""Seconds of a clip that is inlined; longer ones would make the page heavy."""


@dataclass(frozen=True)
class Piece:
    """A run of characters of one kind: equal, substitute, delete (said only), insert (written only)."""

    kind: str
    said: str
    written: str


@dataclass(frozen=True)
class Example:
    """One clip of the report; columns are what stands above each other, runs of pieces between spaces."""

    prediction: Prediction
    cer: float
    columns: tuple[tuple[Piece, ...], ...]
    samples: NDArray[np.float32]
    audio: str


def examples(evaluation: Evaluation, count: int = 8) -> list[Example]:
    """About `count` clips: languages in turn, in each the clips at evenly spaced ranks of error rate.

    So neither the best nor the worst are picked. Clips whose audio cannot be read any more, or is
    longer than `LONGEST`, are passed over.
    """
    ranked = _ranked(evaluation)
    cuts = {
        key_of(cut): cut
        for folder in evaluation.conditions.data
        for cut in read_cuts(Path(folder), evaluation.conditions.split)
    }
    found = []
    for group, wanted in _shares(list(ranked.values()), count):
        for rank in range(wanted):
            prediction, cer = group[int((rank + 0.5) / wanted * len(group))]
            cut = cuts.get(prediction.key)
            if cut is None:
                raise IsoglossError(
                    f"{', '.join(evaluation.conditions.data)} changed since the evaluation: the clip "
                    f"{prediction.id} is gone; evaluate again."
                )
            try:
                samples = waveform(cut)
            except AudioError:
                continue
            found.append(Example(prediction, cer, tuple(columns(prediction)), samples, data_uri(samples)))
    return found


def columns(prediction: Prediction) -> Iterator[tuple[Piece, ...]]:
    """The alignment, cut wherever a space is in both: columns that a line may break between."""
    column: list[Piece] = []
    for piece in align(prediction.said, prediction.written):
        if piece.kind != "equal":
            column.append(piece)
            continue
        first, *others = piece.said.split(" ")
        column += [Piece("equal", first, first)] * bool(first)
        for word in others:
            yield tuple(column)
            column = [Piece("equal", word, word)] * bool(word)
    yield tuple(column)


def align(said: str, written: str) -> list[Piece]:
    """A minimal alignment of two texts by letters, each with the marks that combine with it."""
    import jiwer

    left, right = clusters(said), clusters(written)
    # jiwer aligns strings: one private character for each distinct letter.
    codes = {cluster: chr(0xF0000 + number) for number, cluster in enumerate(dict.fromkeys(left + right))}
    if not left:
        return [Piece("insert", "", written)] if written else []
    reference, hypothesis = ("".join(codes[cluster] for cluster in side) for side in (left, right))
    found = jiwer.process_characters(reference, hypothesis)
    return [
        Piece(
            chunk.type,
            "".join(left[chunk.ref_start_idx : chunk.ref_end_idx]),
            "".join(right[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in found.alignments[0]
    ]


def clusters(text: str) -> list[str]:
    """Letters with the combining marks that follow them."""
    found: list[str] = []
    for character in text:
        if found and unicodedata.category(character)[0] == "M":
            found[-1] += character
        else:
            found.append(character)
    return found


def data_uri(samples: NDArray[np.float32]) -> str:
    """A 16 kHz waveform (S,) as FLAC that a page can hold: small, lossless, played by every browser."""
    encoded = io.BytesIO()
    sf.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"


def _ranked(evaluation: Evaluation) -> dict[str, list[tuple[Prediction, float]]]:
    """By language, the clips that can be shown with their CER, best first."""
    shown = [p for p in evaluation.predictions if p.scored and p.seconds <= LONGEST]
    counts = errors(shown)
    groups: dict[str, list[tuple[Prediction, float]]] = defaultdict(list)
    for prediction, wrong, total in zip(shown, counts.errors.tolist(), counts.totals.tolist(), strict=True):
        groups[prediction.language].append((prediction, wrong / total))
    return {tag: sorted(group, key=lambda item: (item[1], item[0].id)) for tag, group in sorted(groups.items())}


def _shares(
    groups: list[list[tuple[Prediction, float]]], count: int
) -> Iterable[tuple[list[tuple[Prediction, float]], int]]:
    """How many clips each language shows; with more languages than clips, languages evenly spaced."""
    if len(groups) > count:
        places = np.linspace(0, len(groups) - 1, count).round().astype(int)
        return [(groups[place], 1) for place in places]
    return [
        (group, min(len(group), count // len(groups) + (number < count % len(groups))))
        for number, group in enumerate(groups)
    ]
