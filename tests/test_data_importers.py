"""What people have becomes utterances, or one sentence that says what to mend."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.audio.reading import AudioInfo
from isogloss.data.finding import Aside
from isogloss.data.importers import read_source
from isogloss.data.manifests import Utterance, to_cut, write_cuts
from isogloss.data.rows import make_id
from isogloss.errors import IsoglossError


def files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def take(path, language=None, scratch=None, aside=None):
    return list(read_source(Path(path), language, scratch or Path("unused"), aside or Aside()))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Folders


def test_folder_takes_language_and_split_from_its_folders_and_text_from_beside(tmp_path):
    files(tmp_path, "ro/train/a.wav", "test/pt_BR/b.FLAC", "ro/train/notes.md")
    write(tmp_path / "ro/train/a.txt", "\ufeffBună ziua!\n")
    first, second = take(tmp_path)
    assert (first.id, first.language, first.text, first.split) == ("ro/train/a", "ro", "Bună ziua!", "train")
    assert (second.language, second.text, second.split) == ("pt-BR", None, "test")
    assert {first.source, second.source} == {tmp_path.name}


def test_folder_without_language_needs_one(tmp_path):
    files(tmp_path, "wav/a.wav", "b.mp3")
    with pytest.raises(IsoglossError, match=r"2 clips of .* without a language \(.*b\.mp3.*give --language"):
        take(tmp_path)
    assert {utterance.language for utterance in take(tmp_path, "Romanian")} == {"ro"}


def test_given_language_wins_over_a_folder_that_happens_to_be_a_code(tmp_path):
    files(tmp_path, "ana/a.wav")
    assert take(tmp_path, "ro")[0].language == "ro"


def test_folder_without_audio(tmp_path):
    write(tmp_path / "readme.txt", "nothing")
    with pytest.raises(IsoglossError, match="holds no audio"):
        take(tmp_path)


def test_missing_path_names_the_neighbour(tmp_path):
    files(tmp_path, "recordings/a.wav")
    with pytest.raises(IsoglossError, match='Did you mean "recordings"'):
        take(tmp_path / "recording")


def test_transcript_in_another_encoding(tmp_path):
    files(tmp_path, "ro/a.wav")
    (tmp_path / "ro/a.txt").write_bytes("ţară".encode("iso8859-2"))
    with pytest.raises(IsoglossError, match=r"a\.txt, line 1: not UTF-8 text"):
        take(tmp_path)


def test_a_file_of_no_known_kind(tmp_path):
    with pytest.raises(IsoglossError, match="neither a table"):
        take(write(tmp_path / "notes.docx", "x"))


# Tables


def test_csv_with_every_column(tmp_path):
    files(tmp_path, "audio/long.wav")
    table = write(
        tmp_path / "talks.csv",
        "audio,text,language,speaker,split,start,duration\n"
        'audio/long.wav,"Salut, lume",ron,7,validation,1.5,2\n'
        "audio/long.wav,,ro,7,train,3.5,\n",
    )
    first, second = take(table)
    assert first == Utterance(
        id="audio/long-1.50",
        audio=tmp_path / "audio/long.wav",
        language="ro",
        source="talks",
        text="Salut, lume",
        start=1.5,
        duration=2.0,
        speaker="7",
        split="dev",
    )
    assert (second.text, second.start, second.duration, second.split) == (None, 3.5, None, "train")


def test_common_voice_table_with_its_other_columns_and_quotes(tmp_path):
    files(tmp_path, "clips/cv_1.mp3")
    header = (
        "client_id path sentence_id sentence sentence_domain up_votes age gender accents variant locale x"
    )
    row = ["abc", "cv_1.mp3", "9", 'He said "no', "", "2", "", "", "", "", "en", ""]
    table = write(tmp_path / "validated.tsv", "\t".join(header.split()) + "\n" + "\t".join(row) + "\n")
    (only,) = take(table)
    assert (only.text, only.speaker, only.audio) == ('He said "no', "abc", tmp_path / "clips/cv_1.mp3")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "audio,sentense,language",
            r'column "sentense"\. Did you mean "sentence"\? Known columns: audio: audio or',
        ),
        ("audio,text,langauge", r'column "langauge"\. Did you mean "language"'),
        ("clip,text,language", r"no audio column among clip, text, language\. Known columns"),
        ("", "no audio column among none"),
    ],
)
def test_wrong_column_is_named_with_the_nearest_and_the_list(tmp_path, header, message):
    with pytest.raises(IsoglossError, match=message):
        take(write(tmp_path / "t.csv", f"{header}\na.wav,x,ro\n"))


def test_all_wrong_rows_are_told_together(tmp_path):
    table = write(
        tmp_path / "t.csv",
        "audio,language,start,split\na.wav,ro,-1,\nb.wav,Klingonish,0,\nc.wav,ro,soon,\n,ro,0,\nd.wav,ro,0,exam\n",
    )
    with pytest.raises(IsoglossError) as caught:
        take(table)
    message = str(caught.value)
    assert message.startswith(f"{table} has 5 unusable rows (line 2: a negative time")
    told = (
        'line 3: Unknown language "Klingonish"',
        "line 4: could not",
        "line 5: no audio",
        'line 6: the split "exam"',
    )
    for part in told:
        assert part in message


def test_rows_without_language_are_told_by_line(tmp_path):
    table = write(tmp_path / "t.csv", "audio,language\na.wav,ro\nb.wav,\n")
    with pytest.raises(IsoglossError, match=r"1 clip of .*t\.csv without a language \(line 3\)"):
        take(table)
    assert [utterance.language for utterance in take(table, "uk")] == ["ro", "uk"]


def test_table_that_is_not_utf8(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"audio,language\na.wav,ro\n\xff\xfe,ro\n")
    with pytest.raises(IsoglossError, match=r"t\.csv, line 3: not UTF-8 text; convert the file"):
        take(table)


# JSON lines


def test_json_lines_with_translations(tmp_path):
    lines = [
        {"audio": "a.wav", "text": "Pisica", "language": "ro", "translations": {"eng": "The cat"}},
        {"audio": "b.wav", "language": "ro", "speaker": 3},
    ]
    path = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, lines)))
    first, second = take(path)
    assert first.translations == {"en": "The cat"}
    assert (second.text, second.speaker) == (None, "3")


@pytest.mark.parametrize("broken", ['{"audio": ', "[1]", "3"])
def test_broken_json_line_is_named(tmp_path, broken):
    path = write(tmp_path / "d.jsonl", '{"audio": "a.wav", "language": "ro"}\n\n' + broken + "\n")
    with pytest.raises(IsoglossError, match=r"d\.jsonl, line 3"):
        take(path)


def test_json_lines_cut_short_in_gzip(tmp_path):
    import gzip

    path = tmp_path / "d.jsonl.gz"
    whole = gzip.compress(b"\n".join(b'{"audio": "%d.wav", "language": "ro"}' % n for n in range(500)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IsoglossError, match=r"d\.jsonl\.gz, line \d+: unreadable"):
        take(path)


# lhotse


def cut(number, **other):
    utterance = Utterance(
        f"u{number}",
        Path(f"/speech/{number}.wav"),
        "ro",
        "made",
        "Unu doi",
        speaker="s",
        split="dev",
        **other,
    )
    return to_cut(utterance, AudioInfo(9.0, 16000, 2, "WAV/PCM_16", 144000)), utterance


def test_prepared_corpus_comes_back_as_it_was(tmp_path):
    whole, utterance = cut(
        1, translations={"en": "One two"}, phones=((0.0, 0.5, "u"), (0.5, 0.2, "n")), role="r"
    )
    part, other = cut(2, start=2.25, duration=3.5, channel=2, concept="c", phones=((0.1, 0.5, "d"),))
    write_cuts(tmp_path, [whole, part])
    assert take(tmp_path) == [utterance, other]


def test_lhotse_recordings_with_supervisions(tmp_path):
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    recordings = RecordingSet.from_recordings([cut(number)[0].recording for number in (1, 2)])
    said = SupervisionSegment("s1", "1", 1.0, 2.0, text=" Unu ", language="Romanian", speaker="p")
    recordings.to_file(tmp_path / "x_recordings_train.jsonl.gz")
    SupervisionSet.from_segments([said]).to_file(tmp_path / "x_supervisions_train.jsonl.gz")
    for place in (tmp_path, tmp_path / "x_supervisions_train.jsonl.gz"):
        first, second = take(place, "und")
        assert (first.id, first.text, first.language, first.start, first.duration) == (
            "s1",
            "Unu",
            "ro",
            1.0,
            2.0,
        )
        assert (second.text, second.language, second.duration, second.split) == (None, "und", None, "train")


def test_what_a_folder_of_lhotse_manifests_leaves_aside(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    made, _ = cut(1)
    made.recording.sources[0].source = str(tmp_path / "a.wav")
    write_cuts(tmp_path, [made])
    write(tmp_path / "notes.md", "")
    aside = Aside()
    assert len(list(read_source(tmp_path, "ro", tmp_path / "scratch", aside))) == 1
    assert aside.plain()["files"] == {".md": 1, ".wav": 1}


def test_channels_of_lhotse_recordings(tmp_path):
    """One file of two channels, and a file for each of two; lhotse counts from 0."""
    from lhotse import AudioSource, CutSet, MonoCut, MultiCut, Recording, SupervisionSegment

    stereo = [AudioSource("file", [0, 1], "/speech/both.wav")]
    apart = [AudioSource("file", [0], "/speech/left.wav"), AudioSource("file", [1], "/speech/right.wav")]
    cuts = []
    for name, sources in (("stereo", stereo), ("apart", apart)):
        recording = Recording(name, sources, 16000, 144000, 9.0)
        said = SupervisionSegment(f"{name}-mono", name, 0, 9, channel=1, language="ro")
        cuts.append(MonoCut(f"{name}-mono", 0, 9, 1, [said], recording=recording))
        said = [SupervisionSegment(f"{name}-{c}", name, 0, 9, channel=c, language="ro") for c in (0, [0, 1])]
        cuts.append(MultiCut(f"{name}-multi", 0, 9, [0, 1], said, recording=recording))
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    found = {clip.id: (clip.audio.stem, clip.channel) for clip in take(tmp_path)}
    assert found["stereo-mono"] == ("both", 2) and found["apart-mono"] == ("right", "mix")
    assert found["stereo-0"] == ("both", 1) and found["apart-0"] == ("left", "mix")
    assert [place for name, place in found.items() if name.startswith("stereo-_0")] == [("both", "mix")]


def test_supervision_of_an_unknown_recording(tmp_path):
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    RecordingSet.from_recordings([cut(1)[0].recording]).to_file(tmp_path / "recordings.jsonl")
    SupervisionSet.from_segments([SupervisionSegment("s1", "lost", 0, 1)]).to_file(
        tmp_path / "supervisions.jsonl"
    )
    with pytest.raises(IsoglossError, match=r"1 supervision of recordings that are not in recordings\.jsonl \(s1\)"):
        take(tmp_path)


def test_lhotse_audio_that_would_run_a_command_is_refused(tmp_path):
    made = cut(1)[0].to_dict()
    made["recording"]["sources"][0] |= {"type": "command", "source": f"touch {tmp_path}/run"}
    path = write(tmp_path / "cuts.jsonl", json.dumps(made))
    with pytest.raises(IsoglossError, match=r"cuts\.jsonl, line 1: the audio is not a plain file"):
        take(path)


# NeMo


def test_a_folder_of_nemo_manifests(tmp_path):
    files(tmp_path, "wav/a.wav", "wav/b.wav", "wav/c.wav")
    for name, audio in (("train_manifest.json", "a"), ("dev-clean.jsonl", "b")):
        line = {"audio_filepath": f"wav/{audio}.wav", "duration": 1.5, "text": "unu", "lang": "ro", "type": "read"}
        write(tmp_path / name, json.dumps(line))
    write(tmp_path / "notes.json", json.dumps({"author": "x"}, indent=1))
    write(tmp_path / "broken.json", "{")
    aside = Aside()
    found = {clip.audio.name: clip for clip in take(tmp_path, aside=aside)}
    assert {name: clip.split for name, clip in found.items()} == {"a.wav": "train", "b.wav": "dev"}
    assert (found["a.wav"].text, found["a.wav"].duration, found["a.wav"].language) == ("unu", 1.5, "ro")
    assert aside.files == {".json": 2, ".wav": 1}
    assert [clip.id for clip in take(tmp_path / "train_manifest.json")] == ["wav/a-0.00"]


def test_a_manifest_of_tar_archives_says_what_to_do(tmp_path):
    line = {"audio_filepath": "a.wav", "duration": 1.5, "text": "unu", "lang": "ro", "shard_id": 0}
    path = write(tmp_path / "tarred_audio_manifest.json", json.dumps(line))
    with pytest.raises(IsoglossError, match=r"tarred_audio_manifest\.json speaks of audio in tar archives .*; unpack"):
        take(path)
    files(tmp_path, "a.wav")
    assert [clip.text for clip in take(path)] == ["unu"]


# Hugging Face


def test_audiofolder_with_split_folders(tmp_path):
    write(tmp_path / "train/metadata.csv", "file_name,transcription\na.wav,Unu\n")
    write(tmp_path / "test/metadata.jsonl", '{"file_name": "a.wav", "transcription": "Doi"}\n')
    test, train = sorted(take(tmp_path, "ro"), key=lambda utterance: utterance.id)
    assert (train.id, train.text, train.split, train.audio) == (
        "train/a",
        "Unu",
        "train",
        tmp_path / "train/a.wav",
    )
    assert (test.id, test.text, test.split) == ("test/a", "Doi", "test")


def test_parquet_with_audio_inside(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"info": {"features": {"language": {"_type": "ClassLabel", "names": ["ro", "uk"]}}}}
    table = pyarrow.table(
        {
            "audio": [{"bytes": b"RIFF1", "path": "x.wav"}, {"bytes": b"RIFF2", "path": None}],
            "sentence": ["Unu", None],
            "language": [1, 0],
            "id": [5, 5],
        }
    ).replace_schema_metadata({"huggingface": json.dumps(features)})
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data/validation-00000-of-00001.parquet")
    with pyarrow.ipc.new_stream(tmp_path / "saved.arrow", table.schema) as stream:
        stream.write_table(table)
    scratch = tmp_path / "scratch"
    first, second = take(tmp_path / "data", None, scratch)
    assert (first.language, first.text, first.split) == ("uk", "Unu", "dev")
    assert (second.language, second.text) == ("ro", None)
    assert first.id != second.id
    assert first.audio.read_bytes() == b"RIFF1" and first.audio.is_relative_to(scratch)
    assert second.audio.read_bytes() == b"RIFF2"
    assert [u.text for u in take(tmp_path / "saved.arrow", None, scratch)] == ["Unu", None]


LAYOUTS = {  # columns beside {bytes, path}, as public data sets on the Hub have them
    "commonvoice": {"client_id": "a", "path": "ro_train_0/common_voice_ro_0.mp3", "sentence": "unu", "locale": "ro"},
    "fleurs": {"id": 1, "path": "/x/0.wav", "transcription": "unu", "gender": 0, "language": "Romanian"},
    "librispeech": {"file": "0.flac", "text": "unu", "speaker_id": 1, "id": "1-0"},
    "mls": {"original_path": "u", "begin_time": 12.5, "end_time": 14.0, "transcript": "unu", "audio_duration": 1.5},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("column", ["audio", "recording"])
def test_parquet_with_a_path_beside_the_audio(tmp_path, layout, column):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    features = {"info": {"features": {column: {"_type": "Audio"}, "photo": {"_type": "Image"}}}}
    content = {"bytes": b"RIFF1", "path": "0.wav"}
    row = {"photo": {"bytes": b"JFIF", "path": None}, **LAYOUTS[layout], column: content}
    table = pyarrow.Table.from_pylist([row]).replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "README.md").write_text("x")
    aside = Aside()
    (only,) = take(tmp_path, "ro", tmp_path / "scratch", aside)
    assert (only.text, only.language, only.start, only.duration) == ("unu", "ro", 0.0, None)
    assert only.audio.read_bytes() == b"RIFF1"
    unused = {"path", "gender", "file", "original_path", "begin_time", "end_time", "audio_duration"} & {*row}
    assert set(aside.columns) == unused | {"photo"}
    assert aside.files == {".md": 1}


def test_parquet_with_paths_alone_has_segments(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files(tmp_path, "long.wav")
    rows = {"audio": ["long.wav"], "begin": [1.5], "end": [2.25], "text": ["nan"]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "x.parquet")
    (only,) = take(tmp_path / "x.parquet", "ro")
    assert (only.start, only.duration, only.text, only.audio) == (1.5, 0.75, "nan", tmp_path / "long.wav")


def test_what_datasets_left_beside_saved_files_is_not_read_again(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"audio": [{"bytes": b"RIFF", "path": "a.wav"}] * 200, "text": ["unu"] * 200})
    for name in ("train/data-00000-of-00001.arrow", "train/cache-0a1b.arrow", "train/tmp0x.arrow"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with pyarrow.ipc.new_stream(tmp_path / name, table.schema) as stream:
            stream.write_table(table)
    aside = Aside()
    found = take(tmp_path, "ro", tmp_path / "scratch", aside)
    assert len({clip.id for clip in found}) == len(found) == 200 and {clip.split for clip in found} == {"train"}
    assert aside.files == {".arrow": 2}


def test_audio_that_metadata_does_not_name_is_counted(tmp_path):
    files(tmp_path, "a.wav", "b.wav", ".hidden.wav")
    write(tmp_path / "metadata.csv", "file_name,transcription,mood\na.wav,Unu,glad\n")
    aside = Aside()
    assert [u.id for u in take(tmp_path, "ro", aside=aside)] == ["a"]
    expected = {"files": {".wav": 1, "hidden": 1}, "lines": {}, "columns": ["mood"], "words": {}, "tiers": []}
    assert aside.plain() == expected


def test_parquet_that_is_damaged_or_without_its_library(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(
        IsoglossError, match=r"needs pyarrow; install it with|x\.parquet is not a readable parquet"
    ):
        take(tmp_path, "ro")


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_files_that_break_off_are_named(tmp_path, suffix):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sound = [{"bytes": bytes(range(256)) * 40 + bytes([n]), "path": "a.wav"} for n in range(200)]
    table = pyarrow.table({"audio": sound, "text": ["unu"] * 200})
    path = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path, compression="none", use_dictionary=False)
    else:
        with pyarrow.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=50)
    whole = path.read_bytes()
    damaged = whole[:4] + bytes(400_000) + whole[400_004:] if suffix == "parquet" else whole[: len(whole) // 2]
    for content in (b"", whole[:50], damaged):
        path.write_bytes(content)
        with pytest.raises(IsoglossError, match=rf"x\.{suffix} is not a readable {suffix} file \(.+\); fetch or save"):
            take(path, "ro", tmp_path / "scratch")


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_are_plain_and_distinct(one, other):
    import re

    assert re.fullmatch(r"[A-Za-z0-9._/-]+", make_id(one))
    assert (make_id(one) == make_id(other)) == (one == other)
