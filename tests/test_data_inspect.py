"""inspect: the figures are right, the oddities are found, the tables are readable."""

import json

import numpy as np
import pytest
import soundfile

from isogloss.audio.reading import AudioInfo, read
from isogloss.data.inspection import inspect, render
from isogloss.data.manifests import Utterance, read_cuts, to_cut, write_card, write_cuts
from isogloss.errors import IsoglossError


@pytest.fixture
def corpus(clips, tmp_path):
    """Real clips of known length and, beside them, each oddity that inspect looks for."""
    audio = tmp_path / "audio"
    audio.mkdir()
    waveform = read(clips[0].audio)[:16000]
    cuts = []

    def add(name, samples, text, language="ro", **other):
        path = audio / f"{name}.wav"
        soundfile.write(path, samples, 16000)
        other.setdefault("split", "train")
        utterance = Utterance(name, path, language, other.pop("source", "made"), text, **other)
        cuts.append(to_cut(utterance, AudioInfo(len(samples) / 16000, 16000, 1, "WAV/PCM_16", len(samples))))

    for number in range(10):
        noisy = np.roll(waveform, number)
        add(
            f"usual{number}",
            noisy,
            f"Zece litere {number}",
            speaker=f"s{number % 2}",
            split="train" if number else "dev",
        )
    add("fast", waveform * 0.9, "un text mult prea lung pentru o singură secundă")
    add("short", waveform[:1600], None)
    add("long", np.tile(waveform, 31), None, source="other")
    add("silent", np.zeros(16000), None)
    add("copy", np.roll(waveform, 3), "ZECE litere, 3!", split="test")
    add("thai", waveform * 0.8, "กำลัง", "th")
    write_cuts(tmp_path / "corpus", cuts)
    write_card(
        tmp_path / "corpus",
        {"name": "made", "fingerprint": "f" * 64, "dropped": {"no text": 3}, "broken": {}},
    )
    return tmp_path / "corpus"


def test_figures(corpus):
    found = inspect(corpus)
    assert (found.total.clips, found.name) == (16, "made")
    romanian, thai = found.languages
    assert (romanian.language, thai.language) == ("ro", "th")
    assert romanian.splits["train"].clips == 13 and romanian.splits["test"].clips == 1
    assert romanian.total.hours == pytest.approx((10 + 1 + 0.1 + 31 + 1 + 1) / 3600, abs=1e-4)
    assert (romanian.speakers, romanian.texts) == (2, 11)
    assert romanian.untranscribed == pytest.approx(3 / 15, abs=1e-3)
    assert romanian.characters_per_second == 13.0
    assert list(found.sources) == ["other", "made"]
    assert found.speakers["made/s0"].clips == 5
    assert found.dropped == {"no text": 3}


def test_oddities(corpus):
    found = inspect(corpus)
    assert [clip.id for clip in found.unusual_rate] == ["fast"]
    assert [clip.id for clip in found.too_long] == ["long"]
    assert [clip.id for clip in found.too_short] == ["short"]
    assert found.repeated_texts == 2
    assert found.leaks == ['"zece litere 3" (train: usual3, test: copy)']
    assert (found.silent, found.repeated_audio, found.unreadable) == ([], [], {})


def test_deep_inspection_listens(corpus):
    (corpus.parent / "audio/usual7.wav").unlink()
    found = inspect(corpus, deep=True)
    assert [clip.id for clip in found.silent] == ["silent"]
    assert found.repeated_audio == [["copy", "usual3"]] or found.repeated_audio == [["usual3", "copy"]]
    assert found.unreadable == {"missing": ["usual7"]}


def test_what_the_data_say_is_no_markup(corpus):
    cuts = read_cuts(corpus)
    for cut in cuts:
        cut.supervisions[0].speaker = "[/red]\x1b[2J"
    write_cuts(corpus, cuts)
    assert "made/[/red]\\x1b[2J" in shown(inspect(corpus))


def test_vocabulary_is_by_script_and_keeps_marks(corpus):
    vocabulary = inspect(corpus).vocabulary
    assert next(iter(vocabulary)) == "Latin" and "Thai" in vocabulary
    assert vocabulary["Latin"]["z"] == 11 and "ă" in vocabulary["Latin"] and "Z" not in vocabulary["Latin"]
    assert vocabulary["Common"][" "] > 20 and "\u0e31" in vocabulary["Common"]


def shown(found):
    from rich.console import Console

    with open("/dev/null", "w") as nowhere:
        console = Console(width=110, record=True, file=nowhere)
        console.print(render(found))
    return console.export_text()


def test_json_and_tables(corpus):
    found = inspect(corpus)
    assert json.loads(json.dumps(found.plain()))["languages"][0]["language"] == "ro"
    table = shown(found)
    for part in (
        "made  16 clips",
        "Language",
        "ro",
        "13.0",
        "rate outside 0.4–1.8 × median",
        "fast",
        "not looked",
    ):
        assert part in table


def test_a_folder_that_is_no_corpus(tmp_path):
    with pytest.raises(IsoglossError, match="is no prepared corpus"):
        inspect(tmp_path)
