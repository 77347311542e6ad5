"""prepare and inspect as a person meets them: what they say of everything that was there, and their exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import yaml

from commands import Run
from isogloss.audio.reading import read
from isogloss.cli import terminal
from isogloss.data.manifests import Utterance, audio_of, read_cuts
from isogloss.errors import counted, lasting, printable

ESCAPE = "a\x1b[31m\x07b.wav"


@pytest.fixture
def speech(clips: list[Utterance], tmp_path: Path) -> Path:
    """A folder with three short real clips."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for name, clip in zip("abc", clips, strict=False):
        soundfile.write(folder / f"{name}.wav", read(clip.audio, duration=1.0), 16000)
    return folder


def test_prepare_says_what_became_of_everything(run: Run, speech: Path, tmp_path: Path) -> None:
    (speech / "a.txt").write_text("Un cocoș", encoding="utf-8")
    (speech / "._a.wav").write_bytes(b"\x00\x05\x16\x07")
    (speech / "d.wav").write_bytes(b"")
    for name in ("notes.docx", "song.m99", "more.docx"):
        (speech / name).write_bytes(b"x")
    arguments = ("prepare", speech, "--language", "RO", "--out", tmp_path / "out", "--max-bad", 1)
    code, out, err = run(*arguments)
    assert (code, out) == (0, f"{tmp_path / 'out'}: 3 clips, 3 s, languages: ro\n")
    assert err.splitlines() == [
        "With a transcript: 1, without: 2.",
        "Clips left out: 1 (empty: 1).",
        "Files left aside: .docx: 2, .m99: 1, hidden: 1.",
        f"Look at it with: isogloss inspect {tmp_path / 'out'}",
    ]


def test_prepare_tells_unused_columns_and_words_for_nothing(run: Run, speech: Path, tmp_path: Path) -> None:
    (speech / "t.csv").write_text("audio,text,mood\na.wav,nan,x\n", encoding="utf-8")
    code, out, err = run("prepare", speech / "t.csv", "--language", "ro_RO", "--out", tmp_path / "out")
    assert code == 0 and ": 1 clip, " in out
    told = ["With a transcript: 0, without: 1.", "Taken as no transcript: nan: 1; in quotation marks it is a word."]
    assert err.splitlines()[:4] == [*told, "Clips left out: 0.", "Columns that are not used: mood."]


def test_deep_inspection_names_clips_that_cannot_be_read(run: Run, speech: Path, tmp_path: Path) -> None:
    run("prepare", speech, "--language", "ro", "--out", tmp_path / "out")
    assert run("inspect", tmp_path / "out", "--deep")[0] == 0
    (speech / "a.wav").unlink()
    (speech / "c.wav").write_bytes(b"no audio")
    code, _, err = run("inspect", tmp_path / "out", "--deep")
    assert code == 1
    assert "2 clips cannot be read: a (missing), c (unreadable); mend the files, or prepare the corpus again" in err
    assert run("inspect", tmp_path / "out")[0] == 0


@pytest.mark.parametrize("language", ["", " "])
def test_an_empty_language_is_refused(run: Run, speech: Path, tmp_path: Path, language: str) -> None:
    code, _, err = run("prepare", speech, "--language", language, "--out", tmp_path / "out")
    assert code == 1 and err.startswith("The language is empty: give a BCP 47 tag")


def test_an_empty_language_is_refused_by_a_recipe(run: Run, tmp_path: Path) -> None:
    recipe = {"name": "x", "data": {"folders": [str(tmp_path)], "languages": [""]}, "stages": []}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    code, _, err = run("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 1 and "The language is empty" in err


def test_a_name_never_speaks_to_the_terminal(run: Run, speech: Path, tmp_path: Path) -> None:
    (speech / ESCAPE).write_bytes(b"no audio")
    (speech / ESCAPE).with_suffix(".txt").write_bytes(b"\xff")
    shown = ""
    for arguments in (("prepare", speech, "--language", "ro"), ("prepare", speech)):
        code, out, err = run(*arguments, "--out", tmp_path / "out")
        assert code == 1
        shown += out + err
    assert "\x1b" not in shown and "\x07" not in shown and r"a\x1b[31m\x07b" in shown


def test_names_that_are_not_utf8_go_through(speech: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe2ro\xff")
    os.rename(speech, odd)
    os.rename(f"{odd}/a.wav", f"{odd}/{os.fsdecode(bytes([0xE2]))}.wav")
    command = [sys.executable, "-m", "isogloss", "prepare", odd, "--language", "ro", "--out", f"{odd}-out"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout.count(b"\\udce2ro\\udcff-out: 3 clips")) == (0, 1), done.stderr
    assert all(audio_of(cut).is_file() for cut in read_cuts(Path(f"{odd}-out")))


def test_what_is_printed_is_one_line_of_plain_characters() -> None:
    assert printable("ță\x1b[2J\n\x85\u202e\u2028\udce2\ud800 🎈") == r"ță\x1b[2J\x0a\x85\u202e\u2028\xe2\ud800 🎈"


def test_sentences_keep_their_lines(capfd: pytest.CaptureFixture[str]) -> None:
    terminal.complain("one [bold]\ntwo\x1b[2J")
    terminal.note("three\x07")
    assert capfd.readouterr().err == "one [bold]\ntwo\\x1b[2J\nthree\\x07\n"


def test_amounts_of_time() -> None:
    assert [lasting(seconds) for seconds in (0, 59, 90, 5400)] == ["0 s", "59 s", "1.5 min", "1.5 h"]


def test_numbers_of_things() -> None:
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]
