"""`isogloss lm` on a prepared corpus: what it counts, and how sure words found with it are."""

import math
from pathlib import Path

import pytest

import isogloss
from isogloss.model import calibration as confidence
from isogloss.model.folder import quantise_model, save_model
from isogloss.text.ngram import load_ngram
from isogloss.text.tokenizers import digest
from isogloss.training.language_model import train_language_model
from small_models import build, sound


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Writes Spanish, of which it knows five letters."""
    made = build(languages=())
    made.config = made.config.model_copy(update={"alphabets": {"es": (1, 2, 3, 4, 5)}, "calibration": (2.0, 1.0)})
    save_model(made, tmp_path / "model", "card")
    return tmp_path / "model"


def test_words_found_with_it_are_as_sure_as_the_dev_clips_say(
    model: Path, letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence, "ENOUGH", 1)
    notes = train_language_model(model, tmp_path / "lm", texts=[], data=[letters], order=3)
    assert notes["sentences"] >= 3 and notes["sentences with unknown symbols, left out"] > 3
    calibration = load_ngram(tmp_path / "lm", digest(model)).calibration
    assert calibration is not None and calibration not in ((1.0, 0.0), (2.0, 1.0))

    recogniser = isogloss.load(model)
    search = recogniser.beam(language_model=tmp_path / "lm")
    word = recogniser.transcribe(sound(3), beam=search).words[0]
    search.language_model.calibration = (1.0, 0.0)
    raw = recogniser.transcribe(sound(3), beam=search).words[0]
    odds = calibration[0] * math.log(raw.confidence / (1 - raw.confidence)) + calibration[1]
    assert word.text == raw.text and word.confidence == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)


def test_text_alone_leaves_confidence_to_the_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("abc\nbad\ncab\n")
    train_language_model(model, tmp_path / "lm", texts=[tmp_path / "some.txt"], data=[], language="es", order=2)
    assert load_ngram(tmp_path / "lm", digest(model)).calibration is None


def test_a_model_searches_with_the_language_model_in_its_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("abc\nbad\ncab\n")
    train_language_model(model, tmp_path / "lm", texts=[tmp_path / "some.txt"], data=[], language="es", order=2)
    plain, clip = isogloss.load(model), sound(3)
    assert plain.search() is None and plain.search(4).language_model is None
    greedy = plain.transcribe(clip)
    train_language_model(model, model / "lm", texts=[tmp_path / "some.txt"], data=[], language="es", order=2)
    own = isogloss.load(model)
    given = own.search(language_model=tmp_path / "lm")
    assert own.search().width == 8 and own.search(hotwords=["ab"]).language_model is own.language_model
    assert own.transcribe(clip) == plain.transcribe(clip, beam=given)
    assert own.search(1) is None and own.transcribe(clip, beam=None) == greedy
    quantise_model(model, tmp_path / "small")
    assert isogloss.load(tmp_path / "small").search() is not None
