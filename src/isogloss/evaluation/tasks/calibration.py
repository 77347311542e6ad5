"""Whether the confidence of a word says how often such words are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from isogloss.errors import IsoglossError
from isogloss.evaluation.data import Data, said_in
from isogloss.evaluation.figures import Figure, figure
from isogloss.evaluation.predictions import Prediction, by_language, predict
from isogloss.evaluation.table import LANGUAGE, Measure, Row, Table
from isogloss.evaluation.task import Task
from isogloss.metrics.calibration import expected_calibration_error
from isogloss.metrics.error_rates import right_words

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

ALL_WORDS = "all words"
CERTAIN = "always certain"
MEASURES = (
    Measure(name="ECE", about="expected calibration error", better="lower"),
    Measure(name="claimed", about="mean confidence of the words written", better=None),
    Measure(name="right", about="share of them that the reference has in their place", better="higher"),
)


class Calibration(Task):
    """Expected calibration error of the confidence of words."""

    place: ClassVar[int] = 40

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that writes, and transcribed clips."""
        if not model.model.decoders:
            return "The model writes no words that it could be certain of."
        return None if any(said_in(cut) for cut in data.cuts) else "None of the clips is transcribed."

    def run(self, model: Recogniser, data: Data) -> Table:
        """What the words of the model claim, and how many are right."""
        table = score(data.once(predict, model))
        if not table.rows:
            raise IsoglossError("The model wrote no words, or none that normalisation leaves as they are.")
        return table


def score(predictions: Sequence[Prediction]) -> Table:
    """Of any system that tells how certain it is of each word.

    Of clips whose hypothesis still has as many words after normalisation.
    """
    words = {language: _words(group) for language, group in by_language(predictions).items()}
    words = {language: pairs for language, pairs in words.items() if pairs}
    rows = [Row(keys={LANGUAGE: language}, figures=_figures(pairs)) for language, pairs in sorted(words.items())]
    if words:
        rows.append(Row(label=ALL_WORDS, figures=_figures([pair for pairs in words.values() for pair in pairs])))
    return Table(
        task="calibration",
        title="Confidence of words",
        about="Words are grouped by the confidence that the system claims for them; the expected calibration error is "
        "the mean gap in a group between what is claimed and how many are right. A system that is always certain would "
        "be wrong by its share of wrong words.",
        items="words",
        keys=(LANGUAGE,),
        measures=MEASURES,
        rows=tuple(rows),
    )


def _words(group: list[Prediction]) -> list[tuple[float, bool]]:
    """(confidence, whether it is right) of the words of clips."""
    telling = [p for p in group if p.confidences and len(p.written.split()) == len(p.confidences)]
    claimed = [claim for prediction in telling for claim in prediction.confidences]
    right = [hit for row in right_words([p.said for p in telling], [p.written for p in telling]) for hit in row]
    return list(zip(claimed, right, strict=True))


def _figures(pairs: list[tuple[float, bool]]) -> dict[str, Figure]:
    claimed, right = zip(*pairs, strict=True)
    hits = sum(right) / len(right)
    return {
        "ECE": figure(expected_calibration_error(claimed, right), len(pairs), baselines={CERTAIN: 1 - hits}),
        "claimed": figure(sum(claimed) / len(claimed), len(pairs)),
        "right": figure(hits, len(pairs)),
    }
