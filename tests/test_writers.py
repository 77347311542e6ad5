"""Transcripts as files: strict parses of what the writers write, for any words and any times."""

import html
import itertools
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.decoding.words import Word
from isogloss.model.results import Identification, Segment, Transcript
from isogloss.serving import writers

TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)([.,])(\d{3})")


def made(
    *segments: tuple[float, float, str], seconds: float = 100.0, language: str | None = "ro"
) -> Transcript:
    """A transcript whose words share each segment's time evenly."""
    parts = []
    for start, end, said in segments:
        words = said.split()
        step = (end - start) / max(1, len(words))
        spoken = tuple(Word(word, start + n * step, start + (n + 1) * step) for n, word in enumerate(words))
        parts.append(Segment(start, end, said, spoken, 0.9))
    return Transcript(" ".join(part.text for part in parts), language, {}, seconds, tuple(parts))


def milliseconds(clock: str, point: str) -> int:
    found = TIMES.fullmatch(clock)
    assert found is not None and found[4] == point, clock
    hours, minutes, seconds, _, rest = found.groups()
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def span(line: str, point: str) -> tuple[int, int]:
    start, end = line.split(" --> ")
    return milliseconds(start, point), milliseconds(end, point)


def parsed_srt(content: str) -> list[tuple[int, int, str]]:
    """As the strictest reader would: number, times, one or more lines, one empty line."""
    cues = []
    for expected, block in enumerate(content.split("\n\n")[:-1], start=1):
        number, times, *lines = block.split("\n")
        assert number == str(expected)
        assert lines and all(line.strip() for line in lines)
        cues.append((*span(times, ","), " ".join(lines)))
    assert content == "" or content.endswith("\n\n")
    return cues


def parsed_vtt(content: str) -> list[tuple[int, int, str]]:
    heading, *blocks = content.split("\n\n")
    assert heading == "WEBVTT" and blocks[-1] == ""
    cues = []
    for block in blocks[:-1]:
        times, *lines = block.split("\n")
        assert lines and all(line.strip() for line in lines)
        assert not any("-->" in line or "<" in line for line in lines)
        assert not any(re.search("&(?!amp;|lt;|gt;)", line) for line in lines)
        cues.append((*span(times, "."), html.unescape(" ".join(lines))))
    return cues


def test_srt_is_numbered_and_timed() -> None:
    content = writers.srt("a.wav", made((0.5, 1.25, "bună ziua"), (3661.5, 3662, "doi"), seconds=4000))
    assert content == (
        "1\n00:00:00,500 --> 00:00:01,250\nbună ziua\n\n2\n01:01:01,500 --> 01:01:02,000\ndoi\n\n"
    )


def test_vtt_escapes_markup_and_arrows() -> None:
    content = writers.vtt("a.wav", made((0, 1, "<b>a & b</b> --> c")))
    assert "&lt;b&gt;a &amp; b&lt;/b&gt; --&gt; c" in content
    assert parsed_vtt(content) == [(0, 1000, "<b>a & b</b> --> c")]


def test_srt_words_cannot_look_like_times() -> None:
    (cue,) = parsed_srt(writers.srt("a.wav", made((0, 1, "00:00:00,000 --> 00:00:01,000"))))
    assert cue[2] == "00:00:00,000 → 00:00:01,000"


def test_long_speech_becomes_captions_that_can_be_read() -> None:
    transcript = made((0, 30, " ".join(f"cuvânt{n}" for n in range(80))), seconds=30)
    cues = parsed_srt(writers.srt("a.wav", transcript))
    assert len(cues) > 4
    assert all(end - start <= 7000 and len(said) <= 84 for start, end, said in cues)
    assert " ".join(said for *_, said in cues) == transcript.text


def test_text_without_words_is_still_a_caption() -> None:
    transcript = made((1, 2, "你好"))
    silent = replace(transcript, segments=(replace(transcript.segments[0], words=()),))
    assert parsed_srt(writers.srt("a.wav", silent)) == [(1000, 2000, "你好")]


def test_silence_writes_valid_empty_files() -> None:
    nothing = made()
    assert writers.srt("a.wav", nothing) == ""
    assert parsed_vtt(writers.vtt("a.wav", nothing)) == []
    assert writers.text("a.wav", nothing) == "\n"
    assert writers.tsv("a.wav", nothing) == ""


def test_tsv_rows_keep_their_columns() -> None:
    rows = writers.tsv("a\tb.wav", made((0.5, 1, "unu\tdoi\ntrei"), (2, 3.0625, "patru")))
    heading = writers.TSV_HEADING.rstrip("\n").split("\t")
    cells = [row.split("\t") for row in rows.splitlines()]
    assert [len(row) for row in cells] == [len(heading)] * 2
    assert cells[0] == ["a b.wav", "0.500", "1.000", "ro", "unu doi trei"]
    assert cells[1][1:3] == ["2.000", "3.062"]


def test_json_holds_the_whole_transcript_on_one_line() -> None:
    transcript = made((0, 1, "ună\u2028zi"))
    content = writers.as_json("a.wav", transcript)
    assert content.count("\n") == 1
    assert json.loads(content) == {"audio": "a.wav"} | json.loads(json.dumps(transcript.plain()))


def test_identifications() -> None:
    found = Identification("ro", {"ro": 0.75, "bg": 0.25})
    assert writers.identification_text("a.wav", found) == "ro  75%  Romanian\n"
    assert writers.identification_tsv("a.wav", found) == "a.wav\tro\t0.750000\na.wav\tbg\t0.250000\n"
    assert json.loads(writers.identification_json("a.wav", found))["probabilities"]["bg"] == 0.25


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x85", "\u2028", "\r", "\x7f"])
def test_control_characters_reach_no_terminal(character: str) -> None:
    transcript = made((0, 1, f"a{character}[31mb"))
    for name in ("text", "tsv", "srt", "vtt"):
        written = writers.WRITERS[name]("x.wav", transcript)
        assert character not in written
        assert "[31mb" in written


@given(
    parts=st.lists(
        st.tuples(
            st.floats(0, 12, allow_nan=False),
            st.floats(0, 12, allow_nan=False),
            st.text(st.characters(codec="utf-8"), max_size=120),
        ),
        max_size=6,
    ),
    seconds=st.floats(1 / 16000, 10),
)
def test_times_run_forward_inside_the_recording(
    parts: list[tuple[float, float, str]], seconds: float
) -> None:
    transcript = made(*parts, seconds=seconds)
    for cues in (parsed_srt(writers.srt("a", transcript)), parsed_vtt(writers.vtt("a", transcript))):
        times = [time for start, end, _ in cues for time in (start, end)]
        assert times == sorted(times)
        assert all(start < end for start, end, _ in cues)
        assert not times or times[-1] < seconds * 1000 + 1
    said = [word for *_, text in parsed_vtt(writers.vtt("a", transcript)) for word in text.split()]
    assert said == writers.plain(transcript.text).split()


def test_ctm_has_a_line_a_word() -> None:
    content = writers.ctm("a talk.wav", made((0.5, 1.5, "bună ziua")))
    assert content == "a_talk.wav 1 0.500 0.500 bună 1.000\na_talk.wav 1 1.000 0.500 ziua 1.000\n"


def test_textgrid_fills_the_recording() -> None:
    content = writers.textgrid("a.wav", made((0.5, 1.5, 'a "b"'), seconds=2.0))
    assert content == (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2.000\ntiers? <exists>\nsize = 1\n'
        'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "words"\n'
        "        xmin = 0\n        xmax = 2.000\n        intervals: size = 4\n"
        '        intervals [1]:\n            xmin = 0.000\n            xmax = 0.500\n            text = ""\n'
        '        intervals [2]:\n            xmin = 0.500\n            xmax = 1.000\n            text = "a"\n'
        '        intervals [3]:\n            xmin = 1.000\n            xmax = 1.500\n            text = """b"""\n'
        '        intervals [4]:\n            xmin = 1.500\n            xmax = 2.000\n            text = ""\n'
    )


@given(
    st.lists(st.tuples(st.floats(-1, 40), st.floats(-1, 40), st.text(max_size=12)), max_size=6),
    st.floats(0, 30),
)
def test_times_of_words_never_overlap_or_leave_the_recording(parts, seconds) -> None:
    transcript = made(*parts, seconds=seconds)
    reached = 0.0
    for line in writers.ctm("a", transcript).splitlines():
        _, channel, start, duration, _, confidence = line.split(" ")
        assert channel == "1" and 0 <= float(confidence) <= 1 and float(duration) > 0
        assert float(start) >= reached - 1e-9
        reached = float(start) + float(duration)
    assert reached <= seconds + 1e-9
    edges = [
        (float(low), float(high))
        for low, high in re.findall(
            r"intervals \[\d+\]:\n +xmin = ([\d.]+)\n +xmax = ([\d.]+)\n", writers.textgrid("a", transcript)
        )
    ]
    assert edges[0][0] == 0 and all(low < high for low, high in edges)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))
    assert edges[-1][1] == pytest.approx(max(seconds, 0.001), abs=1e-3 + 1e-9)
