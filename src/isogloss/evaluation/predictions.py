"""What a system makes of each clip; recognition, language identification and their like are scored from it.

Any system is scored by the same functions, so that a peer's figures are comparable with ours.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from isogloss.audio.reading import Audio
from isogloss.config import Config
from isogloss.data.manifests import language_of, source_of, text_of
from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Clip, Data, Key, key_of
from isogloss.metrics.error_rates import ErrorCounts, Unit, error_counts
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

    from isogloss.model.recogniser import Recogniser
    from isogloss.model.results import Transcript


# Every task asks for the same texts, and a table of several groups for each text several times.
_normalised = lru_cache(1 << 16)(normalise)


class Prediction(Config):
    """One clip, what is said in it and what the system made of it."""

    id: str = Field(description="of the clip, unique within its source")
    source: str = Field(description="the corpus it is from")
    language: str = Field(description="BCP 47 tag of what is spoken")
    seconds: float = Field(description="length of the clip")
    reference: str | None = Field(None, description="what is said, as the corpus spells it; None if unknown")
    hypothesis: str | None = Field(None, description="what the system wrote; None if it does not transcribe")
    phonemes: str | None = Field(None, description="that in the International Phonetic Alphabet, if it writes it")
    confidences: tuple[float, ...] = Field((), description="of the words of the hypothesis; none if it tells none")
    guess: str | None = Field(None, description="language the system guessed; None if told or not asked")
    probability: float | None = Field(None, description="what the system gave its guess")

    @property
    def key(self) -> Key:
        """(corpus, id) of the clip."""
        return self.source, self.id

    @property
    def scored(self) -> bool:
        """Whether the clip counts in error rates: there is a hypothesis and something was said."""
        return self.hypothesis is not None and bool(self.said)

    @property
    def said(self) -> str:
        """The normalised reference."""
        return _normalised(self.reference or "", self.language)

    @property
    def written(self) -> str:
        """The normalised hypothesis."""
        return _normalised(self.hypothesis or "", self.language)


def predict(model: Recogniser, data: Data) -> tuple[Prediction, ...]:
    """What a model makes of all clips that can be read, in their order; raises IsoglossError if none can be."""
    found: dict[Key, Prediction] = {}
    for clips in data.read(data.cuts):
        began = time.perf_counter()
        results = _recognised(model, clips, data)
        data.working_seconds += time.perf_counter() - began
        for (cut, _), result in zip(clips, results, strict=True):
            found[key_of(cut)] = _prediction(cut, *result, writes_phonemes=bool(model.model.config.phonemes))
    if not found:
        causes = ", ".join(f"{cause} {count}" for cause, count in data.causes.items())
        raise IsoglossError(f"None of the {len(data.cuts)} clips could be read ({causes}); prepare the data again.")
    return tuple(found[key_of(cut)] for cut in data.cuts if key_of(cut) in found)


def by_language(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """Those that count in error rates, by the language spoken, in order of appearance."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        if prediction.scored:
            groups[prediction.language].append(prediction)
    return dict(groups)


def errors(predictions: Sequence[Prediction], unit: Unit = "character", *, raw: bool = False) -> ErrorCounts:
    """Errors clip by clip, on normalised or raw texts."""
    pairs = [(p.reference or "", p.hypothesis or "") if raw else (p.said, p.written) for p in predictions]
    return error_counts([said for said, _ in pairs], [written for _, written in pairs], unit)


def _recognised(
    model: Recogniser, clips: list[Clip], data: Data
) -> list[tuple[Transcript | None, dict[str, float]]]:
    """What is said in each clip and in which language, as far as the model has the heads for it.

    Clips of a corpus are stretches of speech already: they are taken as they are.
    """
    waveforms: list[Audio] = [waveform for _, waveform in clips]
    if not model.model.decoders:
        return [(None, {} if data.told else found.probabilities) for found in model.identify(waveforms, vad=False)]
    spoken = [language_of(cut) if data.told else None for cut, _ in clips]
    known = [language if language in model.model.config.alphabets else None for language in spoken]
    transcripts = model.transcribe(waveforms, language=known, beam=data.beam, vad=False)
    return [(transcript, {} if data.told else transcript.probabilities) for transcript in transcripts]


def _prediction(
    cut: MonoCut, transcript: Transcript | None, probabilities: dict[str, float], *, writes_phonemes: bool
) -> Prediction:
    guess = next(iter(probabilities), None)
    segments = () if transcript is None else transcript.segments
    return Prediction(
        id=cut.id,
        source=source_of(cut),
        language=language_of(cut),
        seconds=cut.duration,
        reference=text_of(cut),
        hypothesis=None if transcript is None else transcript.text,
        phonemes=" ".join(part.phonemes for part in segments) if transcript and writes_phonemes else None,
        confidences=() if transcript is None else tuple(round(word.confidence, 4) for word in transcript.words),
        guess=guess,
        probability=None if guess is None else round(probabilities[guess], 4),
    )
