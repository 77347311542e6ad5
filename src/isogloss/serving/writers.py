"""Transcripts as text, JSON, tab-separated values, subtitles (SubRip, WebVTT) and word times (CTM, TextGrid).

A writer is a function from named transcripts to the text of one file. Times never run backwards
and never leave the recording, whatever the model claims.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isogloss.decoding.words import Word
    from isogloss.model.results import Identification, Segment, Transcript

LINE_CHARACTERS = 42
CAPTION_CHARACTERS = 2 * LINE_CHARACTERS
CAPTION_SECONDS = 7.0  # two lines stay readable for about this long

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True)
class Caption:
    """Text on the screen from `start` to `end`, milliseconds."""

    start: int
    end: int
    text: str


def text(name: str, transcript: Transcript) -> str:
    """The words alone, on one line."""
    return plain(transcript.text) + "\n"


def as_json(name: str, transcript: Transcript) -> str:
    """One JSON object on one line: the name and everything the transcript holds."""
    return _json_line({"audio": name} | transcript.plain())


def tsv(name: str, transcript: Transcript) -> str:
    """A row for each segment: audio, start and end in seconds, language, text."""
    rows = (
        (name, f"{part.start:.3f}", f"{part.end:.3f}", transcript.language or "", part.text)
        for part in transcript.segments
    )
    return "".join(_row(row) for row in rows)


def srt(name: str, transcript: Transcript) -> str:
    """SubRip subtitles, numbered from 1."""
    return "".join(
        f"{number}\n{_clock(part.start, ',')} --> {_clock(part.end, ',')}\n{_lines(_no_arrow(part.text))}\n\n"
        for number, part in enumerate(captions(transcript), start=1)
    )


def vtt(name: str, transcript: Transcript) -> str:
    """WebVTT subtitles."""
    cues = (
        f"{_clock(part.start, '.')} --> {_clock(part.end, '.')}\n{_escape(_lines(part.text))}\n\n"
        for part in captions(transcript)
    )
    return "WEBVTT\n\n" + "".join(cues)


def ctm(name: str, transcript: Transcript) -> str:
    """NIST's time-marked conversation: recording, channel, start, duration, word and confidence, a line a word."""
    recording = "_".join(name.split()) or "audio"
    return "".join(
        f"{recording} 1 {start:.3f} {end - start:.3f} {'_'.join(word.split())} {confidence:.3f}\n"
        for start, end, word, confidence in _timed(transcript)
    )


def textgrid(name: str, transcript: Transcript) -> str:
    """Praat's long text format: one tier, `words`, whose intervals fill the recording."""
    seconds = max(math.floor(transcript.seconds * 1000), 1) / 1000
    intervals: list[tuple[float, float, str]] = []
    reached = 0.0
    for start, end, word, _ in _timed(transcript):
        if start > reached:
            intervals.append((reached, start, ""))
        intervals.append((max(start, reached), end, word))
        reached = end
    if reached < seconds:
        intervals.append((reached, seconds, ""))
    head = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        f"xmin = 0\nxmax = {seconds:.3f}\ntiers? <exists>\nsize = 1\nitem []:\n    item [1]:\n"
        f'        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n        xmax = {seconds:.3f}\n'
        f"        intervals: size = {len(intervals)}\n"
    )
    return head + "".join(
        f"        intervals [{number}]:\n            xmin = {start:.3f}\n            xmax = {end:.3f}\n"
        f"            text = {_quoted(word)}\n"
        for number, (start, end, word) in enumerate(intervals, start=1)
    )


def identification_text(name: str, found: Identification) -> str:
    """`ro  97 %  Romanian`."""
    from isogloss.text.languages import language_name

    if found.language is None:
        return "no speech found\n"
    return f"{found.language}  {found.probabilities[found.language]:.0%}  {language_name(found.language)}\n"


def identification_json(name: str, found: Identification) -> str:
    """One JSON object on one line: the name, the language and the probability of each."""
    return _json_line({"audio": name} | found.plain())


def identification_tsv(name: str, found: Identification) -> str:
    """A row for each language, the likeliest first."""
    return "".join(_row((name, tag, f"{share:.6f}")) for tag, share in found.probabilities.items())


WRITERS: dict[str, Callable[[str, Transcript], str]] = {
    "text": text,
    "json": as_json,
    "tsv": tsv,
    "srt": srt,
    "vtt": vtt,
    "ctm": ctm,
    "textgrid": textgrid,
}
SUFFIXES = {"text": ".txt", "textgrid": ".TextGrid"} | {
    name: f".{name}" for name in ("json", "tsv", "srt", "vtt", "ctm")
}
WORD_WRITERS: dict[str, Callable[[Word], str]] = {
    "text": lambda word: f"{plain(word.text)} ",
    "json": lambda word: _json_line(asdict(word)),
    "tsv": lambda word: _row((f"{word.start:.3f}", f"{word.end:.3f}", word.text)),
}
"""One word of a stream."""
TSV_HEADING = "audio\tstart\tend\tlanguage\ttext\n"
IDENTIFICATION_WRITERS: dict[str, Callable[[str, Identification], str]] = {
    "text": identification_text,
    "json": identification_json,
    "tsv": identification_tsv,
}
IDENTIFICATION_HEADING = "audio\tlanguage\tprobability\n"


def captions(transcript: Transcript) -> list[Caption]:
    """The words of a transcript in pieces that fit a screen, in order, inside the recording."""
    last = math.ceil(transcript.seconds * 1000)
    found: list[Caption] = []
    for part in transcript.segments:
        for start, end, said in _readable(part):
            begin = max(round(start * 1000), found[-1].end) if found else min(round(start * 1000), last - 1)
            if begin >= last:
                # Nothing of the recording is left for it: the words join the last caption.
                found[-1] = Caption(found[-1].start, found[-1].end, f"{found[-1].text} {said}")
            else:
                found.append(Caption(begin, min(last, max(round(end * 1000), begin + 1)), said))
    return found


def _timed(transcript: Transcript) -> Iterator[tuple[float, float, str, float]]:
    """(start, end, word, confidence) in milliseconds' precision; nothing overlaps, is empty or leaves the recording."""
    reached = 0
    last = math.floor(transcript.seconds * 1000)
    for word in transcript.words:
        start = max(round(word.start * 1000), reached)
        end = min(max(round(word.end * 1000), start + 1), last)
        if (text := plain(word.text)) and start < end:
            yield start / 1000, end / 1000, text, word.confidence
            reached = end


def _quoted(said: str) -> str:
    """A string of Praat's: quotes inside are doubled."""
    return '"' + said.replace('"', '""') + '"'


def plain(said: str) -> str:
    """One line without control characters, which could end a row or speak to a terminal."""
    return " ".join(_CONTROL.sub(" ", said).split())


def _readable(part: Segment) -> Iterable[tuple[float, float, str]]:
    """(start, end, text) of runs of words that are neither too long to read nor too long on screen."""
    run: list[str] = []
    start = end = part.start
    spoken = [(word.start, word.end, plain(word.text)) for word in part.words] or [
        (part.start, part.end, plain(part.text))
    ]
    for word_start, word_end, word in spoken:
        if not word:
            continue
        full = len(" ".join([*run, word])) > CAPTION_CHARACTERS or word_end - start > CAPTION_SECONDS
        if run and full:
            yield start, end, " ".join(run)
            run = []
        if not run:
            start = word_start
        run.append(word)
        end = word_end
    if run:
        yield start, end, " ".join(run)


def _lines(said: str) -> str:
    return textwrap.fill(said, LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)


def _no_arrow(said: str) -> str:
    # SubRip has no escape for the mark that makes a line of times.
    return said.replace("-->", "→")


def _escape(said: str) -> str:
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _row(values: Iterable[str]) -> str:
    return "\t".join(plain(value) for value in values) + "\n"


def _json_line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
