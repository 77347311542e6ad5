"""Annotations of long recordings: Praat, ELAN and Audacity; every clip has exactly its times, its text, its speaker."""

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
import soundfile

from isogloss.audio.reading import read
from isogloss.data.finding import Aside
from isogloss.data.importers import read_source
from isogloss.data.loading import waveform
from isogloss.data.manifests import read_cuts, speaker_of, text_of
from isogloss.data.prepare import prepare
from isogloss.errors import IsoglossError


@pytest.fixture
def talk(clips, tmp_path):
    """talk.wav: four real clips with half a second of nothing between them; and where each lies."""
    pieces, spans, place = [], [], 0.0
    for clip in clips[:4]:
        waveform = read(clip.audio, duration=1.0)
        spans.append((place, round(place + len(waveform) / 16000, 3)))
        pieces += [waveform, np.zeros(8000, np.float32)]
        place = round(spans[-1][1] + 0.5, 3)
    soundfile.write(tmp_path / "talk.wav", np.concatenate(pieces), 16000)
    return spans


def take(path, language="ro", aside=None, tiers=()):
    return list(read_source(Path(path), language, Path("unused"), aside or Aside(), tiers))


def said(found):
    return [(u.text, u.start, u.duration, u.speaker) for u in found]


def textgrid(tiers, end, short=False):
    """A TextGrid as Praat writes it: every interval between the given ones is there too, empty."""
    label = (lambda name, value: f"{value}\n") if short else (lambda name, value: f"    {name} = {value} \n")
    quoted = lambda text: '"' + text.replace('"', '""') + '"'  # noqa: E731
    out = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + label("xmin", 0) + label("xmax", end)
    out += "<exists> \n" if short else "tiers? <exists> \n"
    out += label("size", len(tiers)) + ("" if short else "item []: \n")
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        out += (
            ("" if short else f"  item [{number}]:\n") + label("class", '"IntervalTier"') + label("name", quoted(name))
        )
        filled, place = [], 0.0
        for start, stop, text in intervals:
            filled += [(place, start, "")] * (start > place) + [(start, stop, text)]
            place = stop
        filled += [(place, end, "")] * (end > place)
        out += label("xmin", 0) + label("xmax", end) + label("intervals: size", len(filled))
        for n, (start, stop, text) in enumerate(filled, 1):
            out += "" if short else f"    intervals [{n}]:\n"
            out += label("xmin", start) + label("xmax", stop) + label("text", quoted(text))
    return out


def eaf(tiers, media="talk.wav", languages="", origin=""):
    """An ELAN document. tiers: {id: (attributes, [(start ms or parent's id, end ms, text)])}."""
    slots, body, number = [], "", 0
    for name, (attributes, annotations) in tiers.items():
        body += f'<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="{escape(name)}" {attributes}>'
        for start, end, text in annotations:
            number += 1
            value = f"<ANNOTATION_VALUE>{escape(text)}</ANNOTATION_VALUE>"
            if isinstance(start, str):
                body += (
                    f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a{number}" ANNOTATION_REF="{start}">{value}'
                    "</REF_ANNOTATION></ANNOTATION>\n"
                )
                continue
            refs = []
            for time in (start, end):
                slots.append(f'<TIME_SLOT TIME_SLOT_ID="ts{len(slots)}" TIME_VALUE="{time}"/>')
                refs.append(f"ts{len(slots) - 1}")
            body += (
                f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" TIME_SLOT_REF1="{refs[0]}" '
                f'TIME_SLOT_REF2="{refs[1]}">{value}</ALIGNABLE_ANNOTATION></ANNOTATION>\n'
            )
        body += "</TIER>\n"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0">\n'
        '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">'
        f'<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/field/{media}" RELATIVE_MEDIA_URL="./{media}" '
        f'MIME_TYPE="audio/x-wav" {origin}/></HEADER>\n'
        f"<TIME_ORDER>{''.join(slots)}</TIME_ORDER>\n{body}{languages}</ANNOTATION_DOCUMENT>\n"
    )


def ms(*seconds):
    return [round(1000 * time) for time in seconds]


# Praat


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_textgrid_is_cut_into_its_intervals(talk, tmp_path, short, encoding):
    tiers = {
        "Ana": [(*talk[0], 'Zise: "da"'), (*talk[2], "pe două\nrânduri")],
        "Ștefan": [(*talk[1], "xmin = 5 intervals [3]: 7 <exists>")],
    }
    content = textgrid(tiers, talk[3][1], short)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "talk.TextGrid").write_bytes(mark + content.replace("\n", "\r\n").encode(encoding))
    prepare(str(tmp_path), tmp_path / "out", language="ro", dev=0, test=0)
    cuts = sorted(read_cuts(tmp_path / "out"), key=lambda cut: cut.start)
    assert [(text_of(cut), speaker_of(cut)) for cut in cuts] == [
        ('Zise: "da"', "Ana"),
        ("xmin = 5 intervals [3]: 7 <exists>", "Ștefan"),
        ("pe două rânduri", "Ana"),
    ]
    whole = read(tmp_path / "talk.wav")
    for cut, (start, end) in zip(cuts, talk, strict=False):
        np.testing.assert_array_equal(waveform(cut), whole[round(start * 16000) : round(end * 16000)])


def test_what_aligners_write_is_no_transcript(talk, tmp_path):
    words = [(*talk[0], "unu")]
    tiers = {"Ana": words, "Ana - words": words, "Ana - phones": words}
    (tmp_path / "talk.TextGrid").write_text(textgrid(tiers, 9), encoding="utf-8")
    aside = Aside()
    assert said(take(tmp_path / "talk.TextGrid", aside=aside)) == [("unu", talk[0][0], 1.0, "Ana")]
    assert aside.plain()["tiers"] == ["Ana - words", "Ana - phones"]
    (tmp_path / "talk.TextGrid").write_text(textgrid({"words": words, "phones": words}, 9), encoding="utf-8")
    for place in (tmp_path, tmp_path / "talk.TextGrid"):
        with pytest.raises(IsoglossError, match=r"talk\.TextGrid labels no .* by its name.*--tiers"):
            take(place)
    (tmp_path / "talk.txt").write_text("unu doi", encoding="utf-8")
    assert said(take(tmp_path)) == [("unu doi", 0.0, None, None)]
    assert said(take(tmp_path, tiers=["words"])) == [("unu", 0.0, 1.0, "words")]


def test_points_say_nothing_about_a_stretch(talk, tmp_path):
    grid = textgrid({"text": [(0, 1, "unu")]}, 9).replace("size = 1", "size = 2", 1)
    grid += 'class = "TextTier"\n name = "t"\n xmin = 0\n xmax = 9\n points: size = 1\n number = 1\n mark = "x"'
    (tmp_path / "talk.textgrid").write_text(grid, encoding="utf-8")
    assert said(take(tmp_path)) == [("unu", 0.0, 1.0, None)]


GRID = textgrid({"Ana": [(0, 1, "unu"), (1, 2, "doi")]}, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GRID[:-60], r"talk\.TextGrid breaks off: a"),
        (GRID.replace('"unu"', '"unu'), r"talk\.TextGrid, line 22: .* where a number should be; .* in line 18,"),
        (GRID.replace('"doi"', '"do"i"'), r"talk\.TextGrid, line 22: .* should be; .* line 22,"),
        (GRID.replace("xmax = 1 ", "xmax = acum "), r"talk\.TextGrid, line 18: \"unu\" where a number should be"),
        (GRID.replace("xmin = 1 ", "xmin = 0.5 "), r'in tier "Ana" stretches overlap .*1-2 starts at 0\.5 s, and 1-1'),
        (GRID.replace("xmax = 2 ", "xmax = 0.5 "), r'in tier "Ana" stretches overlap or run backwards \(1-2 from 1 to'),
        ("some text", r"talk\.TextGrid breaks off"),
        ('"Praat chronological TextGrid text file"\n0 9', r"talk\.TextGrid is no TextGrid; save it as a text file"),
        ("ooBinaryFile\x08TextGrid", r"talk\.TextGrid is a binary TextGrid; save it as a text file in Praat"),
        (GRID.replace("unu", "ţară").encode("iso8859-2"), r"talk\.TextGrid, line 18: not UTF-8 text"),
    ],
)
def test_what_is_wrong_in_a_textgrid_is_named(talk, tmp_path, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "talk.TextGrid").write_bytes(data)
    with pytest.raises(IsoglossError, match=message):
        take(tmp_path)


def test_two_layers_of_one_transcript_are_not_two_speakers(talk, tmp_path):
    layers = {"ort": [(0, 1, "unu"), (1.5, 2, "doi")], "gloss": [(0, 1, "one"), (1.5, 2, "two")]}
    (tmp_path / "talk.TextGrid").write_text(textgrid(layers, 9), encoding="utf-8")
    with pytest.raises(
        IsoglossError, match=r'tiers "ort" and "gloss" label the same stretches \(0–1 s, 1.5–2 s\); say'
    ):
        take(tmp_path)
    assert [u.text for u in take(tmp_path, tiers=["ort"])] == ["unu", "doi"]
    with pytest.raises(IsoglossError, match=r"talk\.TextGrid has no tier ORT or x\*; its tiers are ort, gloss"):
        take(tmp_path, tiers=["ORT", "x*"])


# ELAN


def test_elan_tiers_are_speakers_and_state_their_language(talk, tmp_path):
    tiers = {
        "ana": ('PARTICIPANT="Ana Pop" LANG_REF="ron"', [(*ms(*talk[0]), "unu"), (*ms(*talk[2]), "")]),
        "Ion": ("", [(*ms(*talk[1]), "doi & trei")]),
        "notes": ('PARENT_REF="ana"', [("a1", 0, "laughs")]),
    }
    (tmp_path / "talk.eaf").write_text(eaf(tiers), encoding="utf-8")
    aside = Aside()
    found = take(tmp_path, "bg", aside)
    expected = [("unu", "Ana Pop"), (None, "Ana Pop"), ("doi & trei", "Ion")]
    assert [(u.text, u.speaker) for u in found] == expected
    assert [u.language for u in found] == ["ro", "ro", "bg"]
    assert [(u.start, u.duration) for u in found][:2] == [(0.0, 1.0), (talk[2][0], pytest.approx(1.0))]
    assert aside.plain()["tiers"] == ["notes"] and aside.plain()["files"] == {}
    assert [u.id for u in found] == ["talk/a1", "talk/a2", "talk/a3"]


def test_annotations_that_refer_to_others_have_their_times(talk, tmp_path):
    tiers = {
        "ref@Ana": ("", [(0, 1000, "story.001"), (1500, 2500, "story.002")]),
        "tx@Ana": ('PARENT_REF="ref@Ana"', [("a1", 0, "unu"), ("a1", 0, "doi"), ("a2", 0, "trei")]),
        "ft@Ana": ('PARENT_REF="tx@Ana"', [("a3", 0, "one two"), ("a5", 0, "three")]),
    }
    (tmp_path / "talk.eaf").write_text(eaf(tiers), encoding="utf-8")
    found = take(tmp_path, tiers=["tx@*"])
    assert said(found) == [("unu doi", 0.0, 1.0, "Ana"), ("trei", 1.5, 1.0, "Ana")]
    assert [u.text for u in take(tmp_path, tiers=["ft@Ana"])] == ["one two", "three"]


def test_words_without_a_time_lie_evenly_between_those_that_have_one(talk, tmp_path):
    tiers = {"w": ("", [(0, 7, "unu"), (7, 7, "doi"), (7, 900, "trei")])}
    document = eaf(tiers)
    for slot in range(1, 5):
        document = document.replace(f'"ts{slot}" TIME_VALUE="7"', f'"ts{slot}"')
    for one, other in (("ts2", "ts1"), ("ts4", "ts3")):
        document = document.replace(f'TIME_SLOT_REF1="{one}"', f'TIME_SLOT_REF1="{other}"')
    (tmp_path / "talk.eaf").write_text(document, encoding="utf-8")
    assert [(u.start, u.duration) for u in take(tmp_path)] == [(0.0, 0.3), (0.3, 0.3), (0.6, 0.3)]


@pytest.mark.parametrize("place", ["", "talk.eaf"])
def test_a_document_finds_its_recording_under_another_name_and_origin(talk, tmp_path, place):
    (tmp_path / "talk.wav").rename(tmp_path / "Field 7.wav")
    tiers = {"default": ("", [(*ms(*talk[0]), "unu")])}
    content = eaf(tiers, media="Field%207.wav", origin='TIME_ORIGIN="1500"')
    (tmp_path / "talk.eaf").write_bytes(content.replace('"UTF-8"', '"UTF-16"').encode("utf-16"))
    (only,) = take(tmp_path / place)
    assert (only.audio.name, only.start, only.duration, only.speaker) == ("Field 7.wav", 1.5, 1.0, None)


EAF = eaf({"Ana": ("", [(0, 1000, "unu"), (1000, 2000, "doi")]), "x": ('PARENT_REF="Ana"', [("a1", 0, "one")])})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (EAF[:300], r"talk\.eaf, line 4: broken XML \(.+\); mend it"),
        (EAF.replace("</TIER>", "</TIR>", 1), r"talk\.eaf, line 7: broken XML \(mismatched tag\)"),
        (EAF.replace("ANNOTATION_DOCUMENT", "html"), r"talk\.eaf is no document of ELAN, but <html>"),
        (EAF.replace('"UTF-8"', '"klingon"'), r"talk\.eaf"),
        (
            EAF.replace('TIME_SLOT_REF1="ts2"', 'TIME_SLOT_REF1="ts9"'),
            r"talk\.eaf: the annotation a2 has no time at ts9",
        ),
        (EAF.replace('TIME_VALUE="2000"', 'TIME_VALUE="soon"'), r'talk\.eaf: the time "soon" is no number'),
        (
            EAF.replace('ANNOTATION_REF="a1"', 'ANNOTATION_REF="a3"'),
            r'talk\.eaf: the annotation a3 "one" refers to none',
        ),
        (
            EAF.replace('TIME_VALUE="1000"', 'TIME_VALUE="1300"', 1),
            r'tier "Ana" .*a2 starts at 1 s, and a1 ends at 1\.3',
        ),
        (EAF.replace('ID="Ana"', 'ID="Ana" LANG_REF="xyzzy"'), r'talk\.eaf: tier "Ana": .*"xyzzy"'),
        (EAF.replace("milliseconds", "PAL-frames"), r"talk\.eaf counts time in PAL-frames"),
    ],
)
def test_what_is_wrong_in_an_elan_document_is_named(talk, tmp_path, content, message):
    (tmp_path / "talk.eaf").write_text(content, encoding="utf-8")
    with pytest.raises(IsoglossError, match=message):
        take(tmp_path)


def test_entities_that_grow_are_refused(talk, tmp_path):
    grow = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    document = EAF.replace("<ANNOTATION_DOCUMENT", f'<!DOCTYPE x [<!ENTITY e0 "ha">{grow}]>\n<ANNOTATION_DOCUMENT', 1)
    (tmp_path / "talk.eaf").write_text(document.replace(">unu<", ">&e9;<"), encoding="utf-8")
    with pytest.raises(IsoglossError, match=r"talk\.eaf, line \d+: broken XML"):
        take(tmp_path)


# Audacity


@pytest.mark.parametrize("place", ["", "talk.txt"])
def test_a_label_track_with_frequencies_and_points(talk, tmp_path, place):
    lines = ["0.000000\t1.000000\tunu doi", "\\\t120.5\t4000", "0,5\t0,5\tclick", "1.500000\t2.500000\t", ""]
    (tmp_path / "talk.txt").write_text("\r\n".join(lines), encoding="utf-8")
    aside = Aside()
    found = take(tmp_path / place, aside=aside)
    assert said(found) == [("unu doi", 0.0, 1.0, None), (None, 1.5, 1.0, None)]
    assert aside.plain()["lines"] == {"labels of a point in time": 1}
    assert [u.id for u in found] == ["talk/line-1", "talk/line-4"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0\t1\tunu", "1 2 doi"], r"talk\.txt is a label track with 1 line .*line 2: 1 2 doi"),
        (["0\t1\tunu", "2\t1.5\tdoi"], r"talk\.txt: stretches overlap or run backwards \(line-2 from 2 to 1\.5 s\)"),
        (["0\t1\tunu", "0.5\t2\tdoi"], r"talk\.txt: .*line-2 starts at 0\.5 s, and line-1 ends at 1 s"),
    ],
)
def test_what_is_wrong_in_a_label_track_is_named(talk, tmp_path, lines, message):
    (tmp_path / "talk.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(IsoglossError, match=message):
        take(tmp_path)


def test_a_transcript_is_no_label_track(talk, tmp_path):
    (tmp_path / "talk.txt").write_text("1 2 3\tand then\n4 5\tsix", encoding="utf-8")
    assert [u.text for u in take(tmp_path)] == ["1 2 3\tand then\n4 5\tsix"]
    with pytest.raises(IsoglossError, match="neither a table"):
        take(tmp_path / "talk.txt")


# All


def test_times_beyond_the_recording_are_named_and_stop(talk, tmp_path):
    (tmp_path / "talk.txt").write_text("0\t1\tunu\n5\t60\tdoi\n", encoding="utf-8")
    with pytest.raises(
        IsoglossError, match=r"talk\.wav ends at \d\.\d\d s, before talk/line-2 does \(5\.00 s to 60\.00 s"
    ):
        prepare(str(tmp_path / "talk.txt"), tmp_path / "out", language="ro")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["other.eaf", "other.TextGrid", "other.txt"])
def test_a_recording_that_is_missing(talk, tmp_path, name):
    contents = {
        ".eaf": eaf({"Ana": ("", [(0, 1000, "unu")])}, media="gone.wav"),
        ".TextGrid": GRID,
        ".txt": "0\t1\tunu",
    }
    (tmp_path / name).write_text(contents[Path(name).suffix], encoding="utf-8")
    needed = "gone.wav" if name.endswith(".eaf") else "other.wav"
    with pytest.raises(IsoglossError, match=rf"{name} labels a recording that is not there; put {needed} beside it"):
        take(tmp_path / name)
    aside = Aside()
    take(tmp_path, aside=aside)
    assert aside.plain()["files"] == {Path(name).suffix.lower(): 1}


def test_languages_of_annotated_recordings(talk, tmp_path):
    (tmp_path / "talk.txt").write_text("0\t1\tunu\n", encoding="utf-8")
    for place in (tmp_path, tmp_path / "talk.txt"):
        with pytest.raises(IsoglossError, match=r"1 clip of .* without a language \(talk/line-1\)"):
            take(place, None)


def test_tiers_of_what_has_none(tmp_path):
    (tmp_path / "t.csv").write_text("audio,language\na.wav,ro\n", encoding="utf-8")
    with pytest.raises(IsoglossError, match=r"t\.csv has no tiers, which only annotations have"):
        take(tmp_path / "t.csv", tiers=["x"])
