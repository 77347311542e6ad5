"""How it sounds: phoneme error rates of models that write the International Phonetic Alphabet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data, said_in
from isogloss.evaluation.figures import Figure, mean_of_rates, rate
from isogloss.evaluation.predictions import Prediction, by_language, predict
from isogloss.evaluation.table import LANGUAGE, Bars, Measure, Row, Table
from isogloss.evaluation.task import Task
from isogloss.metrics.error_rates import ErrorCounts, error_counts, nearest_to_others

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

MEAN, ONE_SENTENCE = "mean of languages", "one sentence"
PER = Measure(
    name="PER",
    about="phoneme error rate",
    better="lower",
    spread="95 % interval, bootstrap over clips",
)


class Phonemes(Task):
    """Phoneme error rate by language, of models that write phonemes."""

    place: ClassVar[int] = 30

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that writes phonemes, and transcribed clips."""
        if not model.model.config.phonemes:
            return "The model writes no phonemes."
        return None if any(said_in(cut) for cut in data.cuts) else "None of the clips is transcribed."

    def run(self, model: Recogniser, data: Data) -> Table:
        """Errors of what the model writes, against what espeak-ng makes of the transcripts."""
        counts: dict[str, ErrorCounts] = {}
        trivial: dict[str, float] = {}
        notes = []
        for language, group in by_language(data.once(predict, model)).items():
            try:
                said = _pronounced(model, group, language)
            except IsoglossError as error:
                notes.append(f"Not measured in {language}: {error}")
                continue
            if not any(said):
                notes.append(f"Not measured in {language}: the model writes none of its phonemes.")
                continue
            counts[language] = error_counts(said, [p.phonemes or "" for p in group], "character")
            always = error_counts(said, [nearest_to_others(said)] * len(said), "character")
            trivial[language] = float(always.errors.sum() / always.totals.sum())
        if not counts:
            raise IsoglossError(" ".join(notes))
        rows = [Row(keys={LANGUAGE: tag}, figures={"PER": _rate(counts[tag], trivial[tag])}) for tag in sorted(counts)]
        mean = mean_of_rates(
            [(count.errors, count.totals) for count in counts.values()],
            {ONE_SENTENCE: sum(trivial.values()) / len(trivial)},
        )
        return Table(
            task=self.name(),
            title="Phonemes",
            about="Errors over all phonemes of the references, which espeak-ng makes of the normalised transcripts; "
            "they are as good as its rules. Beside it stands what a system would reach that always writes the same "
            "sentence.",
            keys=(LANGUAGE,),
            measures=(PER,),
            rows=(*rows, Row(label=MEAN, headline=True, figures={"PER": mean})),
            pictures=(Bars(measure="PER"),),
            notes=tuple(notes),
        )


def _rate(count: ErrorCounts, trivial: float) -> Figure:
    return rate(count.errors, count.totals, {ONE_SENTENCE: trivial})


def _pronounced(model: Recogniser, group: list[Prediction], language: str) -> list[str]:
    """The transcripts in the International Phonetic Alphabet."""
    sounds = model.model.processor.phonemes([p.reference for p in group], [language] * len(group))
    return [model.model.processor.ipa(row.tolist()) for row in sounds.unpad()]
