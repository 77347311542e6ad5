"""What is said: character and word error rates by language and corpus.

    predictions ── normalise ── errors clip by clip ── corpus-level rates ── bootstrap over clips
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from isogloss.evaluation.data import Data, said_in, voices
from isogloss.evaluation.figures import Figure, mean_of_rates, rate
from isogloss.evaluation.predictions import Prediction, by_language, errors, predict
from isogloss.evaluation.table import LANGUAGE, Bars, Measure, Row, Table
from isogloss.evaluation.task import Task
from isogloss.metrics.error_rates import ErrorCounts, error_counts, nearest_to_others
from isogloss.text.normalise import NORMALISER_VERSION
from isogloss.text.scripts import scripts

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

FEW = 20
"""Clips below which a bootstrap interval is too narrow to be trusted."""
MEAN, TOGETHER = "mean of languages", "all clips as one"
ONE_SENTENCE = "one sentence"
UNSPACED = frozenset({"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"})

BOOTSTRAP = "95 % interval, bootstrap over clips"
MEASURES = (
    Measure(name="CER", about="character error rate, both texts normalised", better="lower", spread=BOOTSTRAP),
    Measure(name="WER", about="word error rate, both texts normalised", better="lower", spread=BOOTSTRAP),
    Measure(name="CER, raw", about="of the texts as they are", better="lower", spread=BOOTSTRAP, minor=True),
    Measure(name="WER, raw", about="of the texts as they are", better="lower", spread=BOOTSTRAP, minor=True),
)
ABOUT = (
    f"Errors over all characters or words of the references of a group together, after normalising both texts "
    f"({NORMALISER_VERSION}) unless said raw. Beside it stands what a system would reach that always writes the same "
    f"sentence, of all references of the language the one nearest to the others. Languages whose script writes no "
    f"spaces have no word error rate. Voices are the same where other clips of the corpus were trained on."
)


class Recognition(Task):
    """Character and word error rates by language and corpus."""

    place: ClassVar[int] = 10

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that writes, and transcribed clips."""
        if not model.model.decoders:
            return "The model was pre-trained on speech alone and writes nothing yet; fine-tune it first."
        return None if any(said_in(cut) for cut in data.cuts) else "None of the clips is transcribed."

    def run(self, model: Recogniser, data: Data) -> Table:
        """The error rates of what the model writes."""
        return score(data.once(predict, model), data.trained_sources)


def score(predictions: Sequence[Prediction], trained: frozenset[str] | None = None) -> Table:
    """The error rates of any system from its predictions; trained: the corpora it was trained on, if known."""
    groups = by_language(predictions)
    constant = {language: _one_sentence(group) for language, group in groups.items()}
    rows = [row for tag in sorted(groups) for row in _rows(tag, groups[tag], constant[tag], trained)]
    if groups:
        rows += _summaries(groups, constant)
    few = [language for language, group in sorted(groups.items()) if len(group) < FEW]
    note = f"Fewer than {FEW} clips in {', '.join(few)}: their intervals are too narrow."
    return Table(
        task="recognition",
        title="Recognition",
        about=ABOUT,
        keys=(LANGUAGE, "corpus", "voices"),
        measures=MEASURES,
        rows=tuple(rows),
        pictures=(Bars(measure="CER"),) if groups else (),
        notes=(note,) if few else (),
    )


def _rows(
    language: str, group: list[Prediction], constant: dict[str, ErrorCounts], trained: frozenset[str] | None
) -> list[Row]:
    """A language as a whole and, if its clips are of several corpora, each of them."""
    sources = sorted({prediction.source for prediction in group})
    known = {voices(source, trained) for source in sources}
    whole = {"corpus": sources[0] if len(sources) == 1 else "all", "voices": known.pop() if len(known) == 1 else "all"}
    rows = [Row(keys={LANGUAGE: language} | whole, figures=_figures(group, [constant[s] for s in sources]))]
    for source in sources if len(sources) > 1 else []:
        keys = {LANGUAGE: language, "corpus": source, "voices": voices(source, trained)}
        own = [prediction for prediction in group if prediction.source == source]
        rows.append(Row(keys=keys, figures=_figures(own, [constant[source]])))
    return rows


def _summaries(groups: dict[str, list[Prediction]], constant: dict[str, dict[str, ErrorCounts]]) -> list[Row]:
    counts = [errors(group) for group in groups.values()]
    trivial = [_share(list(parts.values())) for parts in constant.values()]
    mean = mean_of_rates(
        [(count.errors, count.totals) for count in counts], {ONE_SENTENCE: sum(trivial) / len(trivial)}
    )
    every = [prediction for group in groups.values() for prediction in group]
    together = _figures(every, [part for parts in constant.values() for part in parts.values()])
    return [
        Row(label=MEAN, headline=True, figures={"CER": mean}),
        Row(label=TOGETHER, figures=together),
    ]


def _figures(group: list[Prediction], constant: list[ErrorCounts]) -> dict[str, Figure]:
    """The error rates of a group of clips, beside those of always the same sentence."""
    spaced = [prediction for prediction in group if not scripts(prediction.said) & UNSPACED]
    counts = {
        "CER": errors(group),
        "WER": errors(spaced, "word"),
        "CER, raw": errors(group, raw=True),
        "WER, raw": errors(spaced, "word", raw=True),
    }
    baselines = {"CER": {ONE_SENTENCE: _share(constant)}}
    return {name: rate(count.errors, count.totals, baselines.get(name)) for name, count in counts.items()}


def _one_sentence(group: list[Prediction]) -> dict[str, ErrorCounts]:
    """By corpus, the errors of always writing the sentence of the group that is nearest to the others."""
    always = nearest_to_others([prediction.said for prediction in group])
    said: dict[str, list[str]] = {}
    for prediction in group:
        said.setdefault(prediction.source, []).append(prediction.said)
    return {source: error_counts(texts, [always] * len(texts), "character") for source, texts in said.items()}


def _share(counts: list[ErrorCounts]) -> float:
    """Errors over characters of several groups together."""
    return float(sum(count.errors.sum() for count in counts) / sum(count.totals.sum() for count in counts))
