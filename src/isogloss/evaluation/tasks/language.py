"""Which language is spoken, and which is taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from isogloss.data.manifests import language_of
from isogloss.evaluation.data import OTHER, SAME, Data, voices
from isogloss.evaluation.figures import figure
from isogloss.evaluation.predictions import Prediction, predict
from isogloss.evaluation.table import Matrix, Measure, Row, Table
from isogloss.evaluation.task import Task
from isogloss.metrics.classification import Classification, classification

if TYPE_CHECKING:
    from isogloss.model.recogniser import Recogniser

ALL = "all"
CHANCE, MOST_FREQUENT = "chance", "most frequent"
MISTAKES = 5
"""Confusions that are named in words."""

MEASURES = (
    Measure(
        name="accuracy",
        about="share of clips whose language is guessed right",
        better="higher",
        spread="95 % interval, Wilson",
    ),
    Measure(name="macro F1", about="mean over languages of the F1 score", better="higher"),
)


class Language(Task):
    """Accuracy of the guessed language, on voices trained on and on others."""

    place: ClassVar[int] = 20

    def why_not(self, model: Recogniser, data: Data) -> str | None:
        """A model that tells languages apart, and clips in some of them."""
        if not model.languages:
            return "The model does not tell languages apart; fine-tune it on more than one."
        if data.told:
            return "The model is told which language is spoken."
        if not any(language_of(cut) in model.languages for cut in data.cuts):
            return f"None of the clips is in a language that the model knows ({', '.join(model.languages)})."
        return None

    def run(self, model: Recogniser, data: Data) -> Table:
        """How often the model's guess is right."""
        return score(data.once(predict, model), model.languages, data.trained_sources)


def score(
    predictions: Sequence[Prediction], known: Sequence[str], trained: frozenset[str] | None = None
) -> Table:
    """The figures of any system from its guesses among the languages `known`.

    trained: the corpora it was trained on, if known; clips of these and of others are then told apart.
    """
    guessed = [prediction for prediction in predictions if prediction.guess is not None]
    asked = [prediction for prediction in guessed if prediction.language in known]
    groups = {ALL: asked}
    if trained is not None:
        for kind in (SAME, OTHER):
            groups[kind] = [prediction for prediction in asked if voices(prediction.source, trained) == kind]
    groups = {kind: group for kind, group in groups.items() if group}
    found = {kind: classification([p.language for p in group], [p.guess or "" for p in group])
             for kind, group in groups.items()}  # fmt: skip
    # What matters most is other voices; all together says nothing more where the two are known.
    shown = [kind for kind in (OTHER, SAME) if kind in groups] or list(groups)
    return Table(
        task="language",
        title="Language identification",
        about=f"Each clip is guessed to be in one of {len(known)} languages: {', '.join(known)}. Voices are the same "
        "where other clips of the corpus were trained on; only on other voices is it certain that languages are told "
        "apart and not speakers and microphones. Always guessing the most frequent language of the clips, and chance, "
        "stand beside the accuracy.",
        keys=("voices",),
        measures=MEASURES,
        rows=tuple(_row(kind, groups[kind], found[kind], len(known), kind in shown) for kind in groups),
        pictures=tuple(_matrix(kind, found[kind]) for kind in shown),
        notes=tuple(_notes(groups, found, guessed, known, trained)),
    )


def confusions(figures: Classification) -> list[tuple[str, str, int]]:
    """(spoken, guessed, clips) of the mistakes, most frequent first."""
    cells = [
        (spoken, guessed, count)
        for spoken, row in zip(figures.labels, figures.confusion.tolist(), strict=True)
        for guessed, count in zip(figures.labels, row, strict=True)
        if spoken != guessed and count
    ]
    return sorted(cells, key=lambda cell: (-cell[2], cell[0], cell[1]))


def _row(kind: str, group: list[Prediction], found: Classification, known: int, headline: bool) -> Row:
    (_, most), = Counter(p.language for p in group).most_common(1)
    trivial = {CHANCE: 1 / known, MOST_FREQUENT: most / len(group)}
    accuracy = figure(found.accuracy, len(group), found.interval, trivial)
    macro = figure(found.macro_f1, len(group))
    return Row(keys={"voices": kind}, headline=headline, figures={"accuracy": accuracy, "macro F1": macro})


def _matrix(kind: str, found: Classification) -> Matrix:
    return Matrix(
        title=f"{kind} voices",
        rows="language spoken",
        columns="language guessed",
        labels=found.labels,
        counts=tuple(map(tuple, found.confusion.tolist())),
    )


def _notes(
    groups: dict[str, list[Prediction]],
    found: dict[str, Classification],
    guessed: list[Prediction],
    known: Sequence[str],
    trained: frozenset[str] | None,
) -> list[str]:
    notes = []
    if ALL in found:
        mistakes = confusions(found[ALL])[:MISTAKES]
        told = ", ".join(f"{spoken} → {taken} ({count})" for spoken, taken, count in mistakes)
        notes.append(f"Most frequent mistakes: {told or 'none'}.")
        most = {kind: Counter(p.language for p in group).most_common(1)[0][0] for kind, group in groups.items()}
        named = ", ".join(f"{tag} ({kind} voices)" for kind, tag in most.items())
        notes.append(f"Most frequent language: {named}.")
    unknown = sorted({prediction.language for prediction in guessed} - set(known))
    if unknown:
        clips = sum(prediction.language in unknown for prediction in guessed)
        notes.append(f"The system does not know {', '.join(unknown)}: {clips} clips in them are left out here.")
    if trained is None:
        notes.append("Which corpora were trained on is not known here: the same and other voices are not told apart.")
    elif OTHER not in groups and groups:
        notes.append("All clips are from corpora that were also trained on (other sentences): languages may be told "
                     "by voices and microphones.")  # fmt: skip
    return notes
