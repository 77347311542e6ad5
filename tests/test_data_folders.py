"""Folders as people keep them: hidden files, links, names in any form; Kaldi directories and LibriSpeech's layout."""

import os
import unicodedata

import pytest

from isogloss.data.finding import Aside, files_below
from isogloss.data.folders import audio_below
from isogloss.data.importers import detect, read_source
from isogloss.data.rows import make_id
from isogloss.errors import IsoglossError


def place(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def take(path, language="ro", aside=None):
    return list(read_source(path, language, path / "scratch", aside or Aside()))


def test_hidden_files_are_left_aside_and_files_of_other_kinds_are_counted(tmp_path):
    for name in ("a.wav", "._a.wav", "._a.txt", ".DS_Store", ".trash/b.wav", "__MACOSX/._a.wav", "notes.docx", "x.m99"):
        place(tmp_path / "ro" / name, "\x00\x05\x16\x07")
    place(tmp_path / "ro/a.txt", "Un cocoș")
    place(tmp_path / "ro/lost.txt", "Doi")
    aside = Aside()
    (only,) = take(tmp_path, None, aside)
    assert (only.id, only.text) == ("ro/a", "Un cocoș")
    assert aside.plain()["files"] == {".docx": 1, ".m99": 1, ".txt": 1, "hidden": 5}


def test_of_recordings_of_one_name_one_is_taken(tmp_path):
    """A video beside its sound, and a clip in two formats."""
    for name in ("a.mp4", "a.wav", "a.txt", "b.mp3", "b.FLAC", "c/a.mp4"):
        place(tmp_path / name, "unu")
    aside = Aside()
    found = [(clip.id, clip.audio.name, clip.text) for clip in take(tmp_path, "ro", aside)]
    assert found == [("a", "a.wav", "unu"), ("b", "b.FLAC", None), ("c/a", "a.mp4", None)]
    assert aside.plain()["files"] == {"same name as another recording": 2}


def test_capitals_of_suffixes_and_metadata_do_not_matter(tmp_path):
    place(tmp_path / "folder/a.wav")
    place(tmp_path / "folder/METADATA.CSV", "file_name,text\na.wav,unu\n")
    place(tmp_path / "lhotse/X_recordings.JSONL", "")
    place(tmp_path / "arrow/X.PARQUET", "")
    assert [clip.text for clip in take(tmp_path / "folder")] == ["unu"]
    assert [detect(tmp_path / name).__name__ for name in ("lhotse", "arrow")] == ["read_lhotse", "read_arrow"]
    place(tmp_path / "libri/84-1.TRANS.TXT", "84-1-0 UNU\n")
    place(tmp_path / "libri/84-1-0.flac")
    assert [(clip.text, clip.speaker) for clip in take(tmp_path / "libri")] == [("UNU", "84")]


def test_links_to_folders_are_followed_and_circles_left(tmp_path):
    place(tmp_path / "elsewhere/b.wav")
    root = tmp_path / "root"
    place(root / "ro/a.wav")
    (root / "bg").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "again").symlink_to(root / "ro", target_is_directory=True)
    (root / "ro/up").symlink_to(root, target_is_directory=True)
    (root / "ro/gone").symlink_to(tmp_path / "nowhere")
    assert [str(f.relative_to(root)) for f in audio_below(root)] == ["bg/b.wav", "ro/a.wav"]
    assert root / "ro/gone" in files_below(root)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert [u.id for u in take(tmp_path / "link", None)] == ["bg/b", "ro/a"]


@pytest.mark.parametrize("audio", ["NFC", "NFD"])
@pytest.mark.parametrize("text", ["NFC", "NFD"])
@pytest.mark.parametrize("suffixes", [(".wav", ".txt"), (".WAV", ".TXT"), (".Wav", ".Txt"), (".wav", ".TXT")])
def test_a_transcript_lies_beside_in_any_form_of_its_name(tmp_path, audio, text, suffixes):
    name = "pâine"
    place(tmp_path / (unicodedata.normalize(audio, name) + suffixes[0]))
    place(tmp_path / (unicodedata.normalize(text, name) + suffixes[1]), "Pâine")
    (only,) = take(tmp_path)
    assert only.text == "Pâine"
    assert only.id == make_id(name)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_transcript_with_a_byte_order_mark(tmp_path, encoding):
    place(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes("Țară\r\n".encode(encoding))
    assert take(tmp_path)[0].text == "Țară"


def test_names_that_are_not_utf8(tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe2ro\xff")
    for suffix, text in ((".wav", ""), (".txt", "Un")):
        with open(odd + suffix, "w", encoding="utf-8") as file:
            file.write(text)
    (only,) = take(tmp_path)
    assert (only.text, os.fsencode(only.audio)) == ("Un", os.fsencode(odd + ".wav"))


def test_the_layout_of_librispeech(tmp_path):
    folder = tmp_path / "train-clean-5/84/121123"
    for number in range(2):
        place(folder / f"84-121123-000{number}.flac")
    place(folder / "84-121123.trans.txt", "84-121123-0000 GO ON\n84-121123-0001\n84-121123-0002 LOST\n")
    aside = Aside()
    first, second = take(tmp_path, "en", aside)
    assert (first.text, first.speaker, first.split) == ("GO ON", "84", "train")
    assert (second.text, second.speaker) == (None, "84")
    assert aside.plain()["lines"] == {"of .trans.txt without a clip": 1}


# Kaldi


def kaldi(root, **files):
    for name in ("one.wav", "two words.wav"):
        place(root / "audio" / name)
    for name, lines in files.items():
        place(root / name.replace("_", "."), "\n".join(lines) + "\n")


def test_a_kaldi_directory_without_segments(tmp_path):
    kaldi(
        tmp_path,
        wav_scp=["u1 audio/one.wav", "u2\taudio/two words.wav"],
        text=["u1 Un cocoș  mare", "u2"],
        utt2spk=["u1 maria", "u2 ion"],
    )
    first, second = take(tmp_path)
    assert (first.id, first.text, first.speaker) == ("u1", "Un cocoș  mare", "maria")
    assert first.audio == tmp_path / "audio/one.wav"
    assert (first.start, first.duration, first.split) == (0.0, None, None)
    assert (second.text, second.speaker, second.audio.name) == (None, "ion", "two words.wav")
    with pytest.raises(IsoglossError, match=r"2 clips of .* without a language \(u1, u2\)"):
        take(tmp_path, None)


def test_kaldi_segments_are_exact_and_what_they_leave_out_is_counted(tmp_path):
    kaldi(
        tmp_path / "data/dev_clean",
        wav_scp=["r1 audio/one.wav", "r2 audio/two words.wav"],
        segments=["r1-a r1 0.7 1.3", "r1-b r1 1.3 -1"],
        text=["r1-a cocoș", "r1-c nimic"],
        utt2lang=["r1-a ron", "r1-b bg"],
    )
    aside = Aside()
    first, second = take(tmp_path, None, aside)
    assert (first.id, first.start, first.duration, first.text) == ("data/dev_clean/r1-a", 0.7, 0.6, "cocoș")
    assert (first.language, second.language, first.split) == ("ro", "bg", "dev")
    assert (second.start, second.duration, second.text) == (1.3, None, None)
    assert aside.plain()["files"] == {".wav": 1}
    assert aside.plain()["lines"] == {"of text without a clip": 1, "of wav.scp without a segment": 1}


def test_kaldi_paths_may_be_relative_to_the_recipe(tmp_path):
    place(tmp_path / "s5/downloads/a.wav")
    place(tmp_path / "s5/data/train/wav.scp", "a downloads/a.wav\n")
    (only,) = take(tmp_path / "s5/data")
    assert only.audio == tmp_path / "s5/downloads/a.wav" and only.split == "train"


def test_what_espnet_dumps(tmp_path):
    """dump/raw/org/train with paths relative to egs2/NAME/asr1, its files of lengths and formats; no segments."""
    root = tmp_path / "asr1"
    place(root / "dump/raw/org/train/data/format.1/ana-u1.flac")
    lines = {"wav.scp": "dump/raw/org/train/data/format.1/ana-u1.flac", "text": "UN COCOȘ", "utt2spk": "ana"}
    for name, value in {**lines, "utt2num_samples": "16000"}.items():
        place(root / "dump/raw/org/train" / name, f"ana-u1 {value}\n")
    place(root / "dump/raw/org/train/audio_format", "flac\n")
    (only,) = take(root / "dump/raw/org/train")
    assert only.audio == root / "dump/raw/org/train/data/format.1/ana-u1.flac" and only.audio.is_file()
    assert (only.text, only.speaker, only.id) == ("UN COCOȘ", "ana", "ana-u1")
    assert [clip.split for clip in take(root / "dump")] == ["train"]


def test_an_unknown_speaker_is_named_like_the_utterance(tmp_path):
    kaldi(tmp_path, wav_scp=["u1 audio/one.wav", "u2 audio/two words.wav"], utt2spk=["u1 u1", "u2 u1"])
    assert [clip.speaker for clip in take(tmp_path)] == [None, "u1"]


@pytest.mark.parametrize("source", ["sph2pipe -f wav x.sph |", "touch RUN|", "raw.ark:1234", "-", ""])
def test_commands_and_archives_are_refused_and_never_run(tmp_path, source):
    kaldi(tmp_path, wav_scp=["u1 audio/one.wav", f"u2 {source.replace('RUN', str(tmp_path / 'run'))}"])
    with pytest.raises(IsoglossError, match=r"wav\.scp: 1 recording \(u2\) .* isogloss runs no commands of a data set"):
        take(tmp_path)
    assert not (tmp_path / "run").exists()


def test_kaldi_lines_that_are_wrong_are_named(tmp_path):
    kaldi(tmp_path, wav_scp=["u1 audio/one.wav"], segments=["a u1 2 1", "b u9 0 1", "c u1 0", "d u1 0 1"])
    with pytest.raises(IsoglossError, match=r"segments has 3 unusable lines \(.*a: from 2 to 1 s.*no u9"):
        take(tmp_path)
    kaldi(tmp_path, wav_scp=["u1 audio/one.wav", "u1 audio/two.wav"])
    with pytest.raises(IsoglossError, match=r'wav\.scp, line 2: "u1" is there a second time'):
        take(tmp_path)
