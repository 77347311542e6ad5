"""The released model is found, says in one sentence where it is not, and transcribes real speech."""

import importlib.util
from pathlib import Path

import pytest

import isogloss
from isogloss import cli
from isogloss.data.manifests import Utterance
from isogloss.errors import IsoglossError
from isogloss.metrics.error_rates import error_rates
from isogloss.model import released
from isogloss.model.folder import load_model
from isogloss.text.normalise import normalise

here = importlib.util.find_spec(released.PACKAGE) is not None
installed = pytest.mark.skipif(not here, reason="isogloss-model is not installed; pip install ./model")


@installed
def test_it_transcribes_english_that_it_never_heard(clips: list[Utterance], capsys: pytest.CaptureFixture[str]) -> None:
    sentences = [clip for clip in clips if clip.source == "pocketsphinx-testdata"]
    model = isogloss.load()
    assert len(model.languages) == 15
    found = model.transcribe([clip.audio for clip in sentences], language="en")
    references = [normalise(clip.text or "", "en") for clip in sentences]
    assert error_rates(references, [item.text for item in found], "character").rate < 0.5
    assert cli.run(["transcribe", str(sentences[0].audio), "--language", "en"]) == 0
    assert capsys.readouterr().out.strip() == found[0].text


@installed
def test_its_card_and_configuration_name_no_place_of_a_machine() -> None:
    folder = released.released_folder()
    assert load_model(folder).config.weights == "int8"
    for file in ("README.md", "config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        assert not [word for word in text.split() if word.strip('",`').startswith("/")]


def test_where_it_is_missing_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(released, "find_spec", lambda name: None)
    with pytest.raises(IsoglossError, match=r"pip install \./model"):
        isogloss.load()
    assert cli.run(["transcribe", str(tmp_path / "talk.wav")]) == 1
    assert "give --model FOLDER" in capsys.readouterr().err
