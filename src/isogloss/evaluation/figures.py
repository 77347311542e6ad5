"""From predictions to figures: error rates and language identification, each with its interval.

Any system is scored by the same function, so that a peer's figures are comparable with ours:

    predictions ── normalise ── errors clip by clip ── corpus-level rates ── bootstrap over clips

All intervals are 95 %. A figure that is not defined (nothing to divide by) is None, never NaN.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isogloss.config import Config
from isogloss.metrics.bootstrap import bootstrap_interval
from isogloss.metrics.calibration import expected_calibration_error
from isogloss.metrics.classification import classification
from isogloss.metrics.error_rates import ErrorCounts, Unit, error_counts, right_words
from isogloss.text.normalise import NORMALISER_VERSION, normalise
from isogloss.text.scripts import scripts

FEW = 20
"""Clips below which a bootstrap interval is too narrow to be trusted."""
ALL, SAME, OTHER = "all", "same sources", "other sources"
UNSPACED = frozenset({"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"})
RESAMPLES = 1000


class Prediction(Config):
    """One clip, what is said in it and what the system made of it."""

    id: str = Field(description="of the clip, unique within its source")
    source: str = Field(description="the corpus it is from")
    language: str = Field(description="BCP 47 tag of what is spoken")
    seconds: float = Field(description="length of the clip")
    reference: str | None = Field(None, description="what is said, as the corpus spells it; None if unknown")
    hypothesis: str | None = Field(None, description="what the system heard; None if it does not transcribe")
    confidences: tuple[float, ...] = Field((), description="of the words of the hypothesis; none if it tells none")
    guess: str | None = Field(None, description="language the system guessed; None if told or not asked")
    probability: float | None = Field(None, description="what the system gave its guess")

    @property
    def scored(self) -> bool:
        """Whether the clip counts in error rates: there is a hypothesis and something was said."""
        return self.hypothesis is not None and bool(self.said)

    @property
    def said(self) -> str:
        """The normalised reference."""
        return normalise(self.reference or "", self.language)

    @property
    def heard(self) -> str:
        """The normalised hypothesis."""
        return normalise(self.hypothesis or "", self.language)


class Conditions(Config):
    """What was evaluated, on what, by which versions."""

    system: str = Field(description="name of the system")
    data: tuple[str, ...] = Field(description="folders of the corpora, as given")
    split: str = Field(description="train, dev or test")
    fingerprint: str = Field(description="SHA-256 over ids, texts and durations of the clips")
    versions: dict[str, str] = Field(description="of isogloss, torch, …")
    normaliser: str = Field(NORMALISER_VERSION, description="version of the text normalisation")
    language_told: bool = Field(False, description="whether the system was told which language is spoken")
    search: str = Field("", description="the beam and the language model, if it searched")
    known_languages: tuple[str, ...] = Field((), description="languages among which the system guesses")
    trained_sources: tuple[str, ...] | None = Field(None, description="corpora trained on; None if not known")
    trained_clips: int | None = Field(None, description="evaluated clips trained on; None if not known")
    broken: dict[str, int] = Field({}, description="clips that could not be read, by cause")
    working_seconds: float = Field(0.0, description="time the transcription took")


class Rate(Config):
    """errors / total with its 95 % interval."""

    value: float
    low: float
    high: float
    errors: int
    total: int


class Recognition(Config):
    """Corpus-level error rates over a set of clips.

    cer, wer: after normalisation of both texts; cer_raw, wer_raw: the texts as they are. Word error
    rates are None where the script writes no spaces between words.
    """

    clips: int
    seconds: float
    cer: Rate | None
    wer: Rate | None
    cer_raw: Rate | None
    wer_raw: Rate | None


class Mean(Config):
    """The unweighted mean over languages of their CER; each resample draws clips within each language."""

    value: float
    low: float
    high: float


class Identification(Config):
    """Language identification over a set of clips, with what guessing without listening would give.

    accuracy has its Wilson interval (low, high). chance: one guess in as many as the system knows
    languages; majority: always the most frequent language of these clips. confusion: one row a
    language spoken, one column a language guessed, in the order of `labels`. unknown: clips in
    languages the system does not know, left out of everything here.
    """

    clips: int
    accuracy: float
    low: float
    high: float
    macro_f1: float
    chance: float
    majority: float
    majority_language: str
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    unknown: int


class Confidence(Config):
    """Whether the system is right as often as it claims: over all words of hypotheses.

    claimed: mean confidence; right: share of the words that the reference has in their place. error:
    the expected calibration error.
    """

    words: int
    claimed: float
    right: float
    error: float


class Evaluation(Config):
    """Everything that is said about one system on one set of clips.

    identification: by group of sources, `all`, `same sources` (heard in training) and `other
    sources`, where there are such clips and the sources of training are known.
    """

    conditions: Conditions
    clips: int
    seconds: float
    overall: Recognition | None
    mean_cer: Mean | None
    languages: dict[str, Recognition]
    identification: dict[str, Identification]
    confidence: Confidence | None = None
    predictions: tuple[Prediction, ...]

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work a second of audio."""
        worked = self.conditions.working_seconds
        return worked / self.seconds if worked and self.seconds else None

    @property
    def sources(self) -> dict[str, tuple[int, bool | None]]:
        """{source: (clips, whether it was trained on; None if not known)}."""
        trained = self.conditions.trained_sources
        counts = sorted(Counter(prediction.source for prediction in self.predictions).items())
        return {name: (count, None if trained is None else name in trained) for name, count in counts}


def score(predictions: Iterable[Prediction], conditions: Conditions) -> Evaluation:
    """The figures of a system from its predictions."""
    predictions = tuple(predictions)
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        if prediction.scored:
            groups[prediction.language].append(prediction)
    scored = [prediction for group in groups.values() for prediction in group]
    return Evaluation(
        conditions=conditions,
        clips=len(predictions),
        seconds=sum(prediction.seconds for prediction in predictions),
        overall=recognition(scored) if scored else None,
        mean_cer=_mean_cer(list(groups.values())) if groups else None,
        languages={language: recognition(group) for language, group in sorted(groups.items())},
        identification=_identification_by_sources(predictions, conditions),
        confidence=_confidence(scored),
        predictions=predictions,
    )


def recognition(predictions: Sequence[Prediction]) -> Recognition:
    """Error rates over clips with a reference."""
    spaced = [p for p in predictions if not scripts(p.said) & UNSPACED]
    return Recognition(
        clips=len(predictions),
        seconds=sum(prediction.seconds for prediction in predictions),
        cer=_rate(errors(predictions)),
        wer=_rate(errors(spaced, "word")),
        cer_raw=_rate(errors(predictions, raw=True)),
        wer_raw=_rate(errors(spaced, "word", raw=True)),
    )


def errors(predictions: Sequence[Prediction], unit: Unit = "character", *, raw: bool = False) -> ErrorCounts:
    """Errors clip by clip, on normalised or raw texts."""
    pairs = [(p.reference or "", p.hypothesis or "") if raw else (p.said, p.heard) for p in predictions]
    return error_counts([said for said, _ in pairs], [heard for _, heard in pairs], unit)


def _confidence(predictions: Sequence[Prediction]) -> Confidence | None:
    """Over the clips whose words are still as many after normalisation; None without any."""
    telling = [p for p in predictions if p.confidences and len(p.heard.split()) == len(p.confidences)]
    if not telling:
        return None
    claimed = [claim for prediction in telling for claim in prediction.confidences]
    right = [hit for row in right_words([p.said for p in telling], [p.heard for p in telling]) for hit in row]
    return Confidence(
        words=len(right),
        claimed=sum(claimed) / len(claimed),
        right=sum(right) / len(right),
        error=expected_calibration_error(claimed, right),
    )


def _rate(counts: ErrorCounts) -> Rate | None:
    wrong, total = int(counts.errors.sum()), int(counts.totals.sum())
    if not total:
        return None
    interval = bootstrap_interval(counts.errors, counts.totals, resamples=RESAMPLES)
    return Rate(value=wrong / total, low=interval.low, high=interval.high, errors=wrong, total=total)


def _mean_cer(groups: list[list[Prediction]]) -> Mean:
    generator = np.random.default_rng(0)
    counts = [errors(group) for group in groups]
    means = np.mean([_resampled_rates(count, generator) for count in counts], axis=0)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    value = float(np.mean([count.errors.sum() / count.totals.sum() for count in counts]))
    return Mean(value=value, low=low, high=high)


def _resampled_rates(counts: ErrorCounts, generator: np.random.Generator) -> NDArray[np.float64]:
    """(RESAMPLES,) corpus-level rates of clips drawn again with replacement."""
    clips = len(counts.totals)
    # How often each clip is drawn says the same as which ones are, in less memory.
    draws = generator.multinomial(clips, np.full(clips, 1 / clips), size=RESAMPLES)
    rates: NDArray[np.float64] = draws @ counts.errors / (draws @ counts.totals)
    return rates


def _identification_by_sources(predictions: Sequence[Prediction], conditions: Conditions) -> dict[str, Identification]:
    groups: dict[str, list[Prediction]] = {ALL: list(predictions)}
    if conditions.trained_sources is not None:
        trained = set(conditions.trained_sources)
        groups[SAME] = [p for p in predictions if p.source in trained]
        groups[OTHER] = [p for p in predictions if p.source not in trained]
    found = {name: _identification(group, conditions.known_languages) for name, group in groups.items()}
    return {name: figures for name, figures in found.items() if figures is not None}


def _identification(predictions: list[Prediction], known: tuple[str, ...]) -> Identification | None:
    guessed = [p for p in predictions if p.guess is not None]
    asked = [p for p in guessed if p.language in known]
    if not asked:
        return None
    figures = classification([p.language for p in asked], [p.guess or "" for p in asked])
    language, most = Counter(p.language for p in asked).most_common(1)[0]
    assert not math.isnan(figures.accuracy)
    return Identification(
        clips=len(asked),
        accuracy=figures.accuracy,
        low=figures.interval.low,
        high=figures.interval.high,
        macro_f1=figures.macro_f1,
        chance=1 / len(known),
        majority=most / len(asked),
        majority_language=language,
        labels=figures.labels,
        confusion=tuple(tuple(row) for row in figures.confusion.tolist()),
        unknown=len(guessed) - len(asked),
    )
