"""Export: what other toolkits get is what was prepared, and comes back as it was."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss import cli
from isogloss.audio.reading import read
from isogloss.data import parquet
from isogloss.data.exporting import EXPORTED, FORMATS, _Words, export
from isogloss.data.loading import waveform
from isogloss.data.manifests import audio_of, language_of, read_cuts, speaker_of, split_of, text_of, translations_of
from isogloss.data.prepare import prepare
from isogloss.errors import AudioError, IsoglossError

ROWS = [
    {"audio": "a.wav", "text": "Un  cocoș\nmare", "language": "ro", "speaker": "Ana Pop", "split": "train"},
    {"audio": "b.flac", "text": "doi", "language": "pt-BR", "speaker": "Ana", "split": "train"},
    {"audio": "b.flac", "start": 0.25, "duration": 0.5, "text": "trei", "language": "ro", "split": "dev"},
    {"audio": "c.ogg", "text": "patru", "language": "bg", "speaker": "Ana-Maria", "split": "test"},
    {"audio": "c.ogg", "start": 0.3, "end": 0.9, "language": "bg", "speaker": "Ana", "split": "train"},
    {"audio": "stereo.wav", "text": "cinci", "language": "ro", "speaker": "Șt|efan", "split": "train"},
]
TRANSLATIONS = {"en": "two", "fr": "deux"}


@pytest.fixture
def corpus(clips, tmp_path):
    """Whole files and parts of WAV, FLAC and Ogg, with and without a transcript, speaker and second channel."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for name, clip in zip(("a.wav", "b.flac", "c.ogg"), clips, strict=False):
        soundfile.write(folder / name, read(clip.audio, duration=1.0), 16000)
    both = np.stack([read(clip.audio, duration=1.0) for clip in clips[:2]], axis=1)
    soundfile.write(folder / "stereo.wav", both, 16000)
    rows = [{"id": f"mine/{n}", **row} for n, row in enumerate(ROWS)]
    rows[1]["translations"] = TRANSLATIONS
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(str(folder / "rows.jsonl"), tmp_path / "corpus")
    return tmp_path / "corpus"


def contents(folder, line=False):
    """What each clip is, whatever its name: split, language, speaker, text, and its audio."""
    found = []
    for cut in read_cuts(folder):
        text = text_of(cut)
        text = " ".join(text.split()) if line and text else text
        found.append(((split_of(cut), language_of(cut), speaker_of(cut) or "", text or ""), waveform(cut)))
    return sorted(found, key=lambda item: item[0])


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_exported_comes_back(corpus, tmp_path, kind):
    pytest.importorskip("pyarrow")
    told = []
    assert export(corpus, tmp_path / "out", kind, on_progress=lambda *said: told.append(said)) == len(ROWS)
    assert told == [("clips", n, len(ROWS)) for n in range(1, len(ROWS) + 1)]
    prepare(str(tmp_path / "out"), tmp_path / "again")
    before, after = contents(corpus, line=kind == "kaldi"), contents(tmp_path / "again")
    if kind == "kaldi":  # a word for each speaker
        before = [((*about[:2], about[2].replace(" ", "_"), about[3]), audio) for about, audio in before]
    assert [about for about, _ in after] == [about for about, _ in before]
    for (_, one), (_, other) in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=2**-14)
    if kind != "kaldi":
        (translated,) = (cut for cut in read_cuts(tmp_path / "again") if translations_of(cut))
        assert (text_of(translated), translations_of(translated)) == ("doi", TRANSLATIONS)
    about = json.loads((tmp_path / "out" / EXPORTED).read_text(encoding="utf-8"))
    assert (about["format"], about["clips"]) == (kind, len(ROWS))


def test_ids_come_back_from_nemo_and_lines_are_as_it_reads_them(corpus, tmp_path):
    export(corpus, tmp_path / "out", "nemo")
    names = {"train_manifest.json", "dev_manifest.json", "test_manifest.json", "train_untranscribed_manifest.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*names, EXPORTED, "audio"}
    (line,) = map(json.loads, (tmp_path / "out/dev_manifest.json").read_text(encoding="utf-8").splitlines())
    place = str(tmp_path / "speech/b.flac")
    assert line == {
        "id": "mine/2",
        "audio_filepath": place,
        "offset": 0.25,
        "duration": 0.5,
        "text": "trei",
        "lang": "ro",
    }
    prepare(str(tmp_path / "out"), tmp_path / "again")
    assert [cut.id for cut in read_cuts(tmp_path / "again")] == [cut.id for cut in read_cuts(corpus)]


@pytest.mark.parametrize(("kind", "read_by_it"), [("nemo", {".wav", ".flac"}), ("kaldi", {".wav"})])
def test_recordings_that_others_cannot_read_are_copied_once(corpus, tmp_path, kind, read_by_it):
    export(corpus, tmp_path / "out", kind)
    recordings = {audio_of(cut) for cut in read_cuts(corpus)}
    needed = {file.stem for file in recordings if file.suffix not in read_by_it or file.stem == "stereo"}
    copies = list((tmp_path / "out/audio").iterdir())
    assert {"c", "stereo"} <= needed == {file.stem.rpartition("-")[0] for file in copies} and len(copies) == len(needed)
    abouts = [soundfile.info(file) for file in copies]
    assert {(about.channels, about.samplerate, about.subtype) for about in abouts} == {(1, 16000, "PCM_16")}


# Kaldi


def table(path):
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == "" and all(lines)
    rows = [line.split(" ", 1) for line in lines]
    keys = [key.encode() for key, *_ in rows]
    assert keys == sorted(set(keys)), f"{path}: not in the order of bytes, or twice"
    assert not re.search(r"[^\S\n ]", "\n".join(lines))
    return {key: value for key, value in rows}


def validate(folder, transcribed=True):
    """What Kaldi's utils/validate_data_dir.sh checks."""
    tables = {name: table(folder / name) for name in ("wav.scp", "segments", "utt2spk", "utt2lang", "spk2utt")}
    by_speaker = sorted(tables["utt2spk"].items(), key=lambda item: (item[1].encode(), item[0].encode()))
    assert by_speaker == list(tables["utt2spk"].items())
    said = [(clip, speaker) for speaker, clips in tables["spk2utt"].items() for clip in clips.split(" ")]
    assert said == list(tables["utt2spk"].items())
    assert (folder / "text").exists() == transcribed
    for name in ("segments", "utt2lang", *(["text"] * transcribed)):
        assert table(folder / name).keys() == tables["utt2spk"].keys(), name
    segments = [line.split(" ") for line in tables["segments"].values()]
    assert all(float(end) > float(start) >= 0 for _, start, end in segments)
    assert {recording for recording, *_ in segments} == tables["wav.scp"].keys()
    assert all(Path(file).is_file() for file in tables["wav.scp"].values())
    return tables


def test_kaldi_directories_are_valid(corpus, tmp_path):
    export(corpus, tmp_path / "out", "kaldi")
    names = {"train", "dev", "test", "train_untranscribed"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*names, "audio", EXPORTED}
    found = {name: validate(tmp_path / "out" / name, name != "train_untranscribed") for name in names}
    assert found["train"]["utt2spk"] == {
        "Ana--mine_1": "Ana",
        "Ana_Pop--mine_0": "Ana_Pop",
        "Șt|efan--mine_5": "Șt|efan",
    }
    assert found["dev"]["utt2spk"] == {"mine_2": "mine_2"}
    assert table(tmp_path / "out/train/text")["Ana_Pop--mine_0"] == "Un cocoș mare"
    assert found["dev"]["segments"] == {"mine_2": f"{next(iter(found['dev']['wav.scp']))} 0.250000 0.750000"}


NAME = st.text(st.sampled_from("aA-_ !,./żș\u00a0\n"), min_size=1, max_size=5)


@given(st.lists(st.tuples(NAME, st.one_of(st.none(), NAME)), unique_by=lambda item: item[0], max_size=12))
@settings(max_examples=200)
def test_words_are_distinct_and_sort_by_speaker_as_by_clip(named):
    words, clips = _Words(), {}
    for name, speaker in named:
        id = words.word("clip", name)
        said_by = id if speaker is None else words.word("speaker", speaker)
        clips[id if speaker is None else f"{said_by}--{id}"] = said_by
        assert re.fullmatch(r"\S+", id) and said_by == (words.word("speaker", speaker) if speaker is not None else id)
    assert len(clips) == len(named)
    by_clip = sorted(clips, key=str.encode)
    assert by_clip == sorted(clips, key=lambda clip: (clips[clip].encode(), clip.encode()))
    speakers = {speaker for _, speaker in named if speaker is not None}
    assert len({words.word("speaker", speaker) for speaker in speakers}) == len(speakers)


def test_a_recording_whose_name_is_a_command_is_copied(clips, tmp_path):
    folder = tmp_path / "speech"
    folder.mkdir()
    soundfile.write(folder / "x.wav", read(clips[0].audio, duration=1.0), 16000)
    (folder / "x.wav").rename(folder / "touch run|")
    (folder / "t.csv").write_text("audio,text,language\ntouch run|,unu,ro\n", encoding="utf-8")
    prepare(str(folder / "t.csv"), tmp_path / "corpus")
    export(tmp_path / "corpus", tmp_path / "out", "kaldi")
    (place,) = validate(tmp_path / "out/train")["wav.scp"].values()
    assert Path(place).parent == tmp_path / "out/audio"


# Parquet


def test_parquet_is_what_datasets_reads(corpus, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    export(corpus, tmp_path / "out", "parquet")
    files = sorted(file.name for file in (tmp_path / "out/data").iterdir())
    assert files == [f"{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")]
    found = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet")
    features = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"_type": "Audio"} and features["text"] == {"dtype": "string", "_type": "Value"}
    assert features["translations"] == {"en": parquet.STRING, "fr": parquet.STRING}
    assert list(features) == found.schema.names
    rows = {row["id"]: row for row in found.to_pylist()}
    whole = rows["mine/1"]["audio"]
    assert whole["bytes"] == (tmp_path / "speech/b.flac").read_bytes() and whole["path"] == "mine_1.flac"
    part = rows["mine/4"]
    assert (part["text"], part["speaker"], part["language"]) == (None, "Ana", "bg")
    np.testing.assert_allclose(
        read(part["audio"]["bytes"]), read(tmp_path / "speech/c.ogg", start=0.3, duration=0.6), atol=2**-14
    )


def test_parquet_is_parted_by_size(corpus, tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "SHARD_BYTES", 60_000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
    export(corpus, tmp_path / "out", "parquet")
    files = sorted((tmp_path / "out/data").glob("train-*"))
    assert len(files) > 1 and [file.name for file in files] == [
        f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))
    ]
    assert sum(pq.ParquetFile(file).num_row_groups for file in files) == 4
    prepare(str(tmp_path / "out"), tmp_path / "again")
    assert len(read_cuts(tmp_path / "again")) == len(ROWS)


# What goes wrong


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_left_where_a_recording_cannot_be_read(corpus, tmp_path, kind):
    pytest.importorskip("pyarrow")
    (tmp_path / "speech/c.ogg").unlink()
    with pytest.raises(AudioError, match=r"c\.ogg"):
        export(corpus, tmp_path / "out", kind)
    assert not [path for path in tmp_path.iterdir() if path.name == "out" or path.name.startswith(".tmp")]


def test_only_an_export_is_replaced_and_only_if_told(corpus, tmp_path):
    out = tmp_path / "out"
    export(corpus, out, "nemo")
    with pytest.raises(IsoglossError, match="exists already; choose another folder or give --overwrite"):
        export(corpus, out, "kaldi")
    export(corpus, out, "kaldi", overwrite=True)
    assert (out / "train/wav.scp").exists() and not (out / "train_manifest.json").exists()
    for place in (corpus, tmp_path / "speech"):
        with pytest.raises(IsoglossError, match=r"holds something else|which is to be replaced"):
            export(corpus, place, "nemo", overwrite=True)
    with pytest.raises(IsoglossError, match="is no prepared corpus"):
        export(tmp_path / "speech", tmp_path / "other", "nemo")
    prepare(str(out), tmp_path / "again")
    with pytest.raises(IsoglossError, match=r"out/audio/.* lies in .*out, which is to be replaced"):
        export(tmp_path / "again", out, "nemo", overwrite=True)


def test_the_verb(corpus, tmp_path, capfd):
    arguments = ["export", str(corpus), "--out", str(tmp_path / "out"), "--format"]
    assert cli.run([*arguments, "kaldi"]) == 0
    assert capfd.readouterr().out == f"{tmp_path / 'out'}: {len(ROWS)} clips\n"
    assert cli.run([*arguments, "nemo"]) == 1
    assert cli.run([*arguments, "zip"]) == 2
