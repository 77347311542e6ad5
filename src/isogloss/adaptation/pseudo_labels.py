"""Pseudo-labels: a teacher transcribes untranscribed clips for a student to learn from (arXiv 2005.09629).

    prepared corpus ─ untranscribed train clips ─ teacher ─ those it is sure of ──> prepared corpus with their texts

The student is then trained on noisier audio than the teacher transcribed (`perturb`, SpecAugment): noisy student.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isogloss.data.loading import waveform
from isogloss.data.manifests import (
    CARD,
    fingerprint,
    language_of,
    read_cuts,
    text_of,
    write_card,
    write_cuts,
)
from isogloss.errors import AudioError, IsoglossError
from isogloss.files import atomic_folder, read_json
from isogloss.interop.whisper_teacher import WhisperTeacher, Written
from isogloss.model.recogniser import Recogniser, load
from isogloss.text.normalise import normalise

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

TOGETHER = 8
"""Clips transcribed at once."""
CHARACTERS = (2.0, 25.0)
"""Characters a second of what somebody says; beside that a teacher has left out words, or repeats itself."""
Progress = Callable[[int, int], None]


class Teacher(Protocol):
    """What transcribes clips in languages that are told."""

    def knows(self, language: str) -> bool:
        """Whether it transcribes a language."""
        ...

    def transcribe(self, clips: list[NDArray[np.float32]], languages: list[str]) -> list[Written]:
        """Clips (S,) at 16 kHz and their languages -> texts, and how sure the teacher is of each."""
        ...


@dataclass(frozen=True)
class OwnTeacher:
    """A model of ours as a teacher."""

    recogniser: Recogniser

    def knows(self, language: str) -> bool:
        """Whether it transcribes a language."""
        return language in self.recogniser.model.config.alphabets

    def transcribe(self, clips: list[NDArray[np.float32]], languages: list[str]) -> list[Written]:
        """Clips (S,) at 16 kHz and their languages -> texts, and how sure the model is of their words."""
        found = self.recogniser.transcribe(list(clips), language=list(languages), vad=False)
        return [
            Written(item.text, float(np.mean([word.confidence for word in item.words])) if item.words else 0.0)
            for item in found
        ]


def teacher_named(source: str) -> Teacher:
    """A teacher by its name: a model folder of ours, or ct2:FOLDER."""
    form, _, place = source.partition(":")
    return WhisperTeacher(Path(place)) if form == "ct2" and place else OwnTeacher(load(source))


def label(
    data: Path,
    teacher: Teacher,
    out: Path,
    *,
    name: str,
    languages: tuple[str, ...] = (),
    confidence: float = 0.6,
    shortest: float = 1.0,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a prepared corpus of the untranscribed train clips that a teacher transcribes surely; return its card.

    name: of the teacher, for the card. languages: only these. confidence: below it a text is left out. shortest:
    seconds; shorter clips are left out, for a teacher guesses them. Raises IsoglossError where nothing is left.
    """
    clips = [
        cut
        for cut in read_cuts(data, "train")
        if not text_of(cut) and cut.duration >= shortest and (not languages or language_of(cut) in languages)
    ]
    known = [cut for cut in clips if teacher.knows(language_of(cut))]
    if not known:
        raise IsoglossError(f"{data} holds no untranscribed train clip in a language that the teacher knows.")
    left_out = Counter({"language the teacher does not know": len(clips) - len(known)})
    with atomic_folder(out, CARD) as folder:
        labelled = []
        for start in range(0, len(known), TOGETHER):
            labelled += _labelled(known[start : start + TOGETHER], teacher, confidence, left_out)
            if on_progress is not None:
                on_progress(min(start + TOGETHER, len(known)), len(known))
        if not labelled:
            raise IsoglossError(f"The teacher is sure of no clip of {data}; give a lower --confidence.")
        write_cuts(folder, labelled)
        about = read_json(data / CARD)
        card = about | {
            "name": f"{about['name']}, labelled",
            "title": f"{about['title']}, transcribed by {name}",
            "clips": len(labelled),
            "transcribed": len(labelled),
            "hours": round(sum(cut.duration for cut in labelled) / 3600, 4),
            "dropped": dict(sorted((+left_out).items())),
            "teacher": {"name": name, "confidence": confidence},
            "fingerprint": fingerprint(labelled),
        }
        write_card(folder, card)
    return card


def _labelled(
    cuts: "list[MonoCut]", teacher: Teacher, confidence: float, left_out: Counter[str]
) -> "list[MonoCut]":
    """The clips of which the teacher is sure, with its texts."""
    readable = []
    for cut in cuts:
        try:
            readable.append((cut, waveform(cut)))
        except AudioError:
            left_out["unreadable"] += 1
    found = []
    written = teacher.transcribe([clip for _, clip in readable], [language_of(cut) for cut, _ in readable])
    for (cut, _), (text, sure) in zip(readable, written, strict=True):
        if reason := _doubtful(text, sure, cut, confidence):
            left_out[reason] += 1
        else:
            supervision = replace(cut.supervisions[0], text=text)
            found.append(replace(cut, supervisions=[supervision]))
    return found


def _doubtful(text: str, sure: float, cut: "MonoCut", confidence: float) -> str:
    """Why a text is not believed; empty if it is."""
    plain = normalise(text, language_of(cut))
    if sure < confidence:
        return "teacher not sure"
    if any(unicodedata.category(sign) == "Nd" for sign in plain):
        return "digits, whose words the teacher does not tell"
    low, high = CHARACTERS
    return "" if low <= len(plain) / cut.duration <= high else "too few or too many characters"
