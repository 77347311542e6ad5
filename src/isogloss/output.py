"""Transcripts as text, JSON, tab-separated values and subtitles (SubRip, WebVTT).

A writer is a function from named transcripts to the text of one file. Times never run backwards
and never leave the recording, whatever the model claims.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isogloss.decoding.words import Word
    from isogloss.model.recogniser import Identification, Segment, Transcript

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
}
SUFFIXES = {"text": ".txt", "json": ".json", "tsv": ".tsv", "srt": ".srt", "vtt": ".vtt"}
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
