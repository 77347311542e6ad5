"""Tables: every row is read right, or named with its line."""

import codecs
import csv
import io
import json
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from isogloss.audio.reading import read
from isogloss.data.finding import Aside
from isogloss.data.importers import read_source
from isogloss.data.manifests import read_cuts
from isogloss.data.prepare import prepare
from isogloss.data.tables import Bare, Malformed, read_rows
from isogloss.errors import IsoglossError


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def take(path, language="ro", aside=None):
    return list(read_source(path, language, path.parent / "scratch", aside or Aside()))


def texts(path):
    return [utterance.text for utterance in take(path)]


# Quotation marks


def test_a_stray_quotation_mark_is_only_a_character(tmp_path):
    rows = ["a.wav,Un cocoș.,ro", 'b.wav,"O găină mică,ro', "c.wav,Casa.,ro", 'd.wav,"Merg acasă,ro', "e.wav,Plouă.,ro"]
    whole = write(tmp_path / "t.csv", "audio,text,language\n" + "\n".join(rows) + "\n")
    assert texts(whole) == ["Un cocoș.", '"O găină mică', "Casa.", '"Merg acasă', "Plouă."]
    # One that nothing closes, and two that close each other at the ends of fields.
    one = write(tmp_path / "one.csv", "audio,text\n" + "\n".join(["a.wav,Un", 'b.wav,"Doi', "c.wav,Trei"]))
    assert texts(one) == ["Un", '"Doi', "Trei"]
    pair = write(tmp_path / "pair.csv", 'audio,text,language\na.wav,"Un,ro\nb.wav,Doi,ro\nc.wav,Trei",ro\n')
    assert texts(pair) == ['"Un', "Doi", 'Trei"']
    inner = write(tmp_path / "inner.csv", 'audio,text\na.wav,"Da" zise el\nb.wav,Zise "nu"\n')
    assert texts(inner) == ['"Da" zise el', 'Zise "nu"']


def test_a_stray_quotation_mark_in_a_row_that_cannot_be_told_is_named(tmp_path):
    table = write(tmp_path / "t.csv", 'audio,text,language\na.wav,Un,ro\nb.wav,"Doi, trei,ro\nc.wav,Patru,ro\n')
    with pytest.raises(IsoglossError, match=r"1 unusable row \(line 3: 4 fields where the heading has 3; close the"):
        take(table)


def test_a_field_in_quotation_marks_may_span_lines_and_hold_anything(tmp_path):
    body = 'a.wav,"Un cocoș,\n""mare"",\r\nroșu",ro\nb.wav,"x\ny",ro\n"c.wav",z,ro\n'
    assert texts(write(tmp_path / "t.csv", "audio,text,language\n" + body)) == ['Un cocoș,\n"mare",\nroșu', "x\ny", "z"]
    two = write(tmp_path / "two.csv", 'audio,text\na.wav,"Bună,\nlume, dragă"\nb.wav,Da\n')
    assert texts(two) == ["Bună,\nlume, dragă", "Da"]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), max_size=5), st.sampled_from(",;"))
def test_what_the_csv_module_writes_comes_back(tmp_path_factory, said, delimiter):
    told = io.StringIO()
    rows = [("audio", "text"), *((f"{number}.wav", text) for number, text in enumerate(said))]
    csv.writer(told, delimiter=delimiter).writerows(rows)
    heading, found = read_rows(write(tmp_path_factory.mktemp("t") / "t.csv", told.getvalue()))
    assert heading == ["audio", "text"]
    assert [row["text"] for _, row in found] == said


def test_tab_separated_files_have_no_quoting(tmp_path):
    table = write(tmp_path / "validated.tsv", 'path\tsentence\na.mp3\t"Da\nb.mp3\tNu"\nc.mp3\t"nan"\n')
    assert texts(table) == ['"Da', 'Nu"', '"nan"']
    quoted = write(tmp_path / "r.tsv", '"path"\t"sentence"\n"a.mp3"\t"Da, ""zise"""\n')
    assert texts(quoted) == ['Da, "zise"']


# Rows of the wrong width


def test_rows_with_too_many_or_too_few_fields_are_named(tmp_path):
    table = write(tmp_path / "t.csv", "audio,text\na.wav,Un cocoș\nb.wav,O găină, mică\n\nc.wav\nd.wav,Casa\n")
    with pytest.raises(IsoglossError) as caught:
        take(table)
    assert "2 unusable rows (line 3: 3 fields where the heading has 2; put one that holds a comma" in str(caught.value)
    assert "line 5: 1 field where" in str(caught.value)
    tabs = write(tmp_path / "t.tsv", "path\tsentence\tlocale\na.wav\tUn\tcocoș\tro\n")
    with pytest.raises(IsoglossError, match="line 2: 4 fields where the heading has 3; no tab may stand inside one"):
        take(tabs)


def test_every_wrong_row_has_its_number_told(tmp_path):
    table = write(tmp_path / "t.csv", "audio,text\n" + "a.wav\n" * 8)
    with pytest.raises(IsoglossError, match=r"8 unusable rows \(line 2: .*, … also lines 7, 8, 9\); mend"):
        take(table)


def test_empty_fields_and_rows_that_spreadsheets_add_are_nothing(tmp_path):
    table = write(tmp_path / "t.csv", "audio,text,,\na.wav,Un,,\nb.wav,Doi,,,,\n,,,\n\n")
    aside = Aside()
    assert [utterance.text for utterance in take(table, aside=aside)] == ["Un", "Doi"]
    assert list(aside.columns) == []


# Encodings, separators, headings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_encodings_with_their_marks(tmp_path, encoding, ends):
    marks = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    content = marks.get(encoding, b"") + ends.join(["audio,text", "a.wav,țară 🎈", ""]).encode(encoding)
    (tmp_path / "t.csv").write_bytes(content)
    assert texts(tmp_path / "t.csv") == ["țară 🎈"]


def test_bytes_that_are_no_text_are_named_by_line(tmp_path):
    for name, content, line in (
        ("a.csv", b"audio,text\na.wav,x\nb.wav,\xfe\n", 3),
        ("b.csv", "audio,text\na.wav,x\n".encode("utf-16-le"), 1),
        ("c.csv", codecs.BOM_UTF16_LE + "audio,text\n".encode("utf-16-le") + b"\x00\xd8a", 2),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(IsoglossError, match=rf"{name}, line {line}: not UTF-(8|16) text"):
            take(tmp_path / name)


@pytest.mark.parametrize("first", ["", "sep=;\n", '"sep=;"\r\n'])
def test_semicolons_and_the_first_line_of_excel(tmp_path, first):
    table = write(tmp_path / "t.csv", first + 'audio;text\na.wav;Un, doi\nb.wav;"Trei; patru"\n')
    assert texts(table) == ["Un, doi", "Trei; patru"]


def test_headings_in_capitals_with_spaces(tmp_path):
    table = write(tmp_path / "t.csv", "Audio File , TRANSCRIPT,Start Time,End-Time,Notes\na.wav,Un,0.5,1.25,x\n")
    aside = Aside()
    (only,) = take(table, aside=aside)
    assert (only.text, only.start, only.duration) == ("Un", 0.5, 0.75)
    assert list(aside.columns) == ["Notes"]


def test_two_columns_of_one_name(tmp_path):
    with pytest.raises(IsoglossError, match='two columns "text"; rename one'):
        take(write(tmp_path / "t.csv", "audio,text,text\na.wav,Un,Doi\n"))


def test_of_several_columns_for_a_field_the_first_counts_and_the_others_are_named(tmp_path):
    aside = Aside()
    table = write(tmp_path / "t.csv", "path,audio,transcription,text\nnot/there.wav,a.wav,un,Un!\n")
    (only,) = take(table, aside=aside)
    assert (only.audio, only.text) == (tmp_path / "a.wav", "Un!")
    assert list(aside.columns) == ["path", "transcription"]


# Times


TIMES = {
    "start,end": "0.7,1.3",
    "begin,end": "0.7,1.3",
    "offset,duration": "0.7,0.6",
    "start_time,end_time": "0.7,1.3",
    "begin_time,dur": "0.7,0.6",
    "Start,Stop": "0.7,1.3",
    "start_ms,end_ms": "700,1300",
    "start_ms,duration": "700,0.6",
    "start,end,duration": "0.7,1.3,0.6",
}


@pytest.mark.parametrize("columns", TIMES)
def test_times_are_exact_however_they_are_called(clips, tmp_path, columns):
    soundfile.write(tmp_path / "a.wav", read(clips[0].audio)[: int(2.16 * 16000)], 16000)
    table = write(tmp_path / "t.csv", f"audio,{columns},text,language\na.wav,{TIMES[columns]},cocoș,ro\n")
    prepare(str(table), tmp_path / "out")
    (cut,) = read_cuts(tmp_path / "out")
    assert (cut.start, cut.duration) == (0.7, 0.6)


def test_a_line_of_nemo(tmp_path):
    line = {"audio_filepath": "a.wav", "offset": 0.7, "duration": 0.6, "text": "cocoș", "lang": "ro"}
    (only,) = take(write(tmp_path / "manifest.json", json.dumps(line)), None)
    assert (only.start, only.duration, only.text, only.language) == (0.7, 0.6, "cocoș", "ro")


@pytest.mark.parametrize(
    ("columns", "values", "reason"),
    [
        ("start,end", "1.3,0.7", "it ends at 0.7 s and starts at 1.3 s"),
        ("start,end", "1,1", "it ends at 1 s"),
        ("start,end,duration", "0.7,1.3,2.16", "from 0.7 to 1.3 s are not 2.16 s"),
        ("start,duration", "0.7,0", "a duration of 0"),
        ("start,end", "0.7,inf", 'the time "inf" is no number'),
        ("start,end", "0,-1", "a negative time"),
        ("start,end", "0:07,0:09", "could not convert"),
    ],
)
def test_impossible_times_are_named(tmp_path, columns, values, reason):
    with pytest.raises(IsoglossError, match=rf"1 unusable row \(line 2: {reason}"):
        take(write(tmp_path / "t.csv", f"audio,{columns}\na.wav,{values}\n"))


def test_a_time_that_is_not_given(tmp_path):
    table = write(tmp_path / "t.csv", "audio,start,end\na.wav,,\nb.wav,1.5,\nc.wav,NaN,2\n")
    assert [(u.start, u.duration) for u in take(table)] == [(0.0, None), (1.5, None), (0.0, 2.0)]


# What stands for nothing


def test_words_for_nothing_are_no_transcripts_and_counted(tmp_path):
    words = ["NaN", "nan", "N/A", "null", "None", "<NA>", "NA", "", " nan "]
    rows = [f"{n}.wav,{word},{word},{word}" for n, word in enumerate(words)]
    aside = Aside()
    found = take(write(tmp_path / "t.csv", "audio,text,speaker,split\n" + "\n".join(rows)), aside=aside)
    assert {(u.text, u.speaker, u.split) for u in found} == {(None, None, None)}
    assert aside.words == {"NaN": 1, "nan": 2, "N/A": 1, "null": 1, "None": 1, "<NA>": 1, "NA": 1}


def test_in_quotation_marks_and_in_json_they_are_words(tmp_path):
    table = write(tmp_path / "t.csv", 'audio,text\na.wav,"null"\nb.wav,"nan"\nc.wav,Null\n')
    assert texts(table) == ["null", "nan", "Null"]
    values = ["nan", "null", None, float("nan"), "", "NaN"]
    lines = [json.dumps({"audio": f"{n}.wav", "text": value, "speaker": value}) for n, value in enumerate(values)]
    found = take(write(tmp_path / "t.jsonl", "\n".join(lines)))
    expected = ["nan", "null", None, None, None, "NaN"]
    assert [u.text for u in found] == expected == [u.speaker for u in found]


def test_the_code_of_min_nan_is_a_language(tmp_path):
    table = write(tmp_path / "t.csv", "audio,language\na.wav,nan\nb.wav,NaN\n")
    assert [u.language for u in take(table)] == ["nan", "ro"]


def test_fields_know_whether_they_stood_in_quotation_marks(tmp_path):
    _, rows = read_rows(write(tmp_path / "t.csv", 'a,b\n"x",y\nz\n'))
    (_, first), (number, second) = rows
    assert not isinstance(first["a"], Bare) and isinstance(first["b"], Bare)
    assert number == 3 and isinstance(second, Malformed)


# Paths


def test_paths_with_backslashes_other_capitals_and_another_composition(tmp_path):
    for name in ("clips/Țară.wav", "clips/B.WAV", "Plain.wav"):
        place = tmp_path / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"")
    decomposed = "clips/\u0054\u0326ara\u0306.wav"
    names = ["clips\\Țară.wav", decomposed, "CLIPS\\b.wav", "plain.wav", "b.wav", "gone.wav"]
    table = write(tmp_path / "t.csv", "\n".join(["audio", *names]))
    found = [utterance.audio.relative_to(tmp_path).as_posix() for utterance in take(table)]
    assert found == ["clips/Țară.wav", "clips/Țară.wav", "clips/B.WAV", "Plain.wav", "clips/B.WAV", "gone.wav"]


def test_of_names_that_differ_in_capitals_alone_none_is_guessed(tmp_path):
    for name in ("a.wav", "A.wav"):
        (tmp_path / name).write_bytes(b"")
    found = [u.audio.name for u in take(write(tmp_path / "t.csv", "audio\nA.wav\na.wav\na.WAV\n"))]
    assert found == ["A.wav", "a.wav", "a.WAV"]


@pytest.mark.parametrize("name", ["a.wav", "A.WAV", "sub\\a.wav", "gone.wav"])
def test_paths_where_the_table_is_named_relative(tmp_path, monkeypatch, name):
    for place in ("own/a.wav", "own/sub/a.wav"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    (only,) = take(write(Path("own/t.csv"), f"audio\n{name}\n"))
    assert only.audio == Path("own") / {"A.WAV": "a.wav", "sub\\a.wav": "sub/a.wav"}.get(name, name)
