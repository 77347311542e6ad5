"""Pseudo-labels: a teacher transcribes untranscribed clips for a student to learn from (arXiv 2005.09629).

    prepared corpus ─ untranscribed train clips ─ teacher ─ those it is sure of ──> prepared corpus with their texts

The student is then trained on noisier audio than the teacher transcribed (`perturb`, SpecAugment): noisy student.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isogloss.audio.reading import SAMPLE_RATE
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
BONUSES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
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
    """A model of ours as a teacher; bonus: by language, nats a symbol in its search with a language model."""

    recogniser: Recogniser
    bonus: Mapping[str, float] = field(default_factory=dict)

    def knows(self, language: str) -> bool:
        """Whether it transcribes a language."""
        return language in self.recogniser.model.config.alphabets

    def transcribe(self, clips: list[NDArray[np.float32]], languages: list[str]) -> list[Written]:
        """Clips (S,) at 16 kHz and their languages -> texts, and how sure the model is of their words."""
        written: dict[int, Written] = {}
        for tag in sorted(set(languages)):
            places = [place for place, language in enumerate(languages) if language == tag]
            search = self.recogniser.beam(bonus=self.bonus[tag]) if tag in self.bonus else self.recogniser.search()
            found = self.recogniser.transcribe([clips[place] for place in places], language=tag, beam=search, vad=False)
            for place, item in zip(places, found, strict=True):
                sure = float(np.mean([word.confidence for word in item.words])) if item.words else 0.0
                written[place] = Written(item.text, sure)
        return [written[place] for place in range(len(clips))]


def bonus_for_pace(
    recogniser: Recogniser, clips: list[NDArray[np.float32]], language: str, pace: float
) -> float:
    """Of `BONUSES`, the nats a symbol with which a search writes so many characters a second, or nearest to that.

    CTC leaves out symbols that it knows from text alone. How many a second there should be, other languages and the
    text tell. clips: (S,) at 16 kHz, in the language.
    """
    seconds = sum(map(len, clips)) / SAMPLE_RATE

    def distance(bonus: float) -> float:
        search = recogniser.beam(bonus=bonus)
        found = recogniser.transcribe(list(clips), language=language, beam=search, vad=False)
        return abs(sum(len(normalise(item.text, language)) for item in found) / seconds - pace)

    return min(BONUSES, key=distance)


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
