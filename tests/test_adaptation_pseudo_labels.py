"""Pseudo-labels: what a teacher is sure of gets its text, everything else stays out and is counted."""

from pathlib import Path

import numpy as np
import pytest

import isogloss
from isogloss.adaptation.pseudo_labels import BONUSES, OwnTeacher, bonus_for_pace, label, teacher_named
from isogloss.data.manifests import language_of, read_cuts, split_of, text_of, write_card, write_cuts
from isogloss.errors import IsoglossError
from isogloss.interop.whisper_teacher import Written
from isogloss.model.folder import save_model
from isogloss.training.language_model import train_language_model
from isogloss.training.recipe import DataRecipe
from isogloss.training.source import read_data
from small_models import build, sound


class Told:
    """Says what it was told to say, in Spanish only."""

    def __init__(self, *answers: Written):
        self.answers = list(answers)
        self.clips = 0

    def knows(self, language: str) -> bool:
        return language == "es"

    def transcribe(self, clips: list[np.ndarray], languages: list[str]) -> list[Written]:
        assert set(languages) == {"es"} and all(clip.dtype == np.float32 for clip in clips)
        self.clips += len(clips)
        return [self.answers.pop(0) if self.answers else Written("nada", 0.0) for _ in clips]


@pytest.fixture(scope="module")
def untranscribed(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untranscribed")
    cuts = read_cuts(letters)
    for cut in cuts:
        cut.supervisions[0].text = None
    write_cuts(folder, cuts)
    write_card(folder, {"name": "letters", "title": "Letters", "hours": 1})
    return folder


def test_only_train_clips_that_the_teacher_knows_and_is_sure_of(untranscribed: Path, tmp_path: Path) -> None:
    said = [Written("be", 0.9), Written("ce", 0.5), Written("10", 0.9), Written("a" * 300, 0.9), Written("de", 0.7)]
    teacher, seen = Told(*said), []
    card = label(
        untranscribed, teacher, tmp_path / "out", name="told", shortest=0, on_progress=lambda *at: seen.append(at)
    )
    spanish = [cut for cut in read_cuts(untranscribed, "train") if language_of(cut) == "es"]
    assert teacher.clips == len(spanish) == seen[-1][0] == seen[-1][1]
    cuts = read_cuts(tmp_path / "out")
    assert sorted(str(text_of(cut)) for cut in cuts) == ["be", "de"]
    assert {split_of(cut) for cut in cuts} == {"train"} and card["clips"] == card["transcribed"] == 2
    assert card["dropped"]["digits, whose words the teacher does not tell"] == 1
    assert card["dropped"]["too few or too many characters"] == 1
    assert card["dropped"]["teacher not sure"] == len(spanish) - 4
    assert card["teacher"] == {"name": "told", "confidence": 0.6}
    recipe = DataRecipe(folders=(tmp_path / "out",), shortest=0)
    assert len(read_data(recipe, "train")) == 2


def test_transcribed_and_short_clips_and_other_languages_are_left_alone(letters: Path, untranscribed: Path) -> None:
    for data, how in [(letters, {}), (untranscribed, {"shortest": 60.0}), (untranscribed, {"languages": ("it",)})]:
        with pytest.raises(IsoglossError, match="no untranscribed train clip"):
            label(data, Told(), Path("nowhere"), name="told", **how)


def test_nothing_is_written_where_the_teacher_is_sure_of_nothing(untranscribed: Path, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="give a lower --confidence"):
        label(untranscribed, Told(), tmp_path / "out", name="told", shortest=0)
    assert not (tmp_path / "out").exists()


def test_a_model_of_ours_is_a_teacher_of_the_languages_it_writes(tmp_path: Path) -> None:
    save_model(build(), tmp_path / "model", "card")
    teacher = teacher_named(str(tmp_path / "model"))
    assert isinstance(teacher, OwnTeacher) and teacher.knows("ro") and not teacher.knows("es")
    recogniser = isogloss.load(tmp_path / "model")
    clips = [np.random.default_rng(seed).normal(0, 0.1, 16000).astype(np.float32) for seed in range(2)]
    for clip, tag, found in zip(clips, ["ro", "ru"], teacher.transcribe(clips, ["ro", "ru"]), strict=True):
        assert 0 <= found.confidence <= 1
        assert found.text == recogniser.transcribe(clip, language=tag, vad=False).text


def test_a_bonus_is_chosen_by_how_fast_people_speak(tmp_path: Path) -> None:
    """The more nats a symbol, the more is written; a teacher may have another bonus in each language."""
    save_model(build(), tmp_path / "model", "card")
    (tmp_path / "ro.txt").write_text("ab ba\nab\nba\n", encoding="utf-8")
    texts = [tmp_path / "ro.txt"]
    train_language_model(tmp_path / "model", tmp_path / "model" / "lm", texts=texts, data=[], language="ro", order=2)
    recogniser = isogloss.load(tmp_path / "model")
    clips = [sound(2.0, seed) for seed in range(3)]
    seconds = sum(map(len, clips)) / 16000

    def pace(bonus: float) -> float:
        found = OwnTeacher(recogniser, {"ro": bonus}).transcribe(clips, ["ro"] * 3)
        return sum(len(item.text) for item in found) / seconds

    paces = [pace(bonus) for bonus in BONUSES]
    assert paces == sorted(paces) and paces[0] < paces[-1]
    assert bonus_for_pace(recogniser, clips, "ro", 0.0) == BONUSES[0]
    chosen = bonus_for_pace(recogniser, clips, "ro", paces[2])
    assert pace(chosen) == paces[2]
    mixed = OwnTeacher(recogniser, {"ru": 3.0}).transcribe(clips[:2], ["ru", "ro"])
    assert mixed[1] == OwnTeacher(recogniser).transcribe(clips[1:2], ["ro"])[0]
