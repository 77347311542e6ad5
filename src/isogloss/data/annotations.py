"""Transcribed long recordings: what Praat, ELAN and Audacity label becomes clips with times.

    .TextGrid   Praat: intervals with a text, a tier for each speaker
    .eaf        ELAN: annotations, a tier for each speaker
    .txt        Audacity: START END LABEL in seconds, between tabs; below it may be a line of frequencies
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from isogloss.data.elan import Document
from isogloss.data.finding import Aside
from isogloss.data.manifests import Utterance, examples
from isogloss.data.praat import read_textgrid
from isogloss.data.rows import make_id
from isogloss.data.tiers import Segment, Tier, choose
from isogloss.errors import IsoglossError, counted
from isogloss.files import numbered_lines
from isogloss.text.languages import normalise_language

ANNOTATIONS = (".eaf", ".textgrid")
"""Of documents of one name beside each other, that with the first of these is taken."""

_TIME = r"\s*(-?\d+(?:[.,]\d+)?)\s*"
_LABEL = re.compile(rf"{_TIME}\t{_TIME}(?:\t(.*))?")
_FREQUENCIES = "\\"  # at the head of a line that goes with the label above


def is_annotation(file: Path) -> bool:
    """Whether a file is named as a document of Praat or ELAN; label tracks are told by `is_labels`."""
    return file.suffix.lower() in ANNOTATIONS


def is_labels(lines: Sequence[tuple[int, str]]) -> bool:
    """Whether the (number, line) of a text file are a label track: some line begins with two times between tabs."""
    return any(_LABEL.fullmatch(line) for _, line in lines)


def annotated(whole: Utterance, document: Path, wanted: Sequence[str], aside: Aside) -> Iterator[Utterance]:
    """The labelled stretches of a recording as clips of it; `wanted` tiers, or all transcripts (see `tiers.choose`).

    An empty text of an interval is a pause; an annotation or a label without a text is an untranscribed clip. What
    lies outside all stretches is no clip. Raises IsoglossError for what is wrong in the document.
    """
    tiers, origin = _read(document, whole.audio)
    for tier in choose(tiers, wanted, document, aside):
        language = whole.language if tier.language is None else _language(tier, document)
        for segment in tier.segments:
            if segment.start == segment.end:
                aside.lines["labels of a point in time"] += 1
                continue
            yield replace(
                whole,
                id=make_id(f"{whole.id}/{segment.name}"),
                language=language,
                text=" ".join(segment.text.split()) or None,
                start=round(segment.start + origin, 6),
                duration=round(segment.end - segment.start, 6),
                speaker=tier.speaker,
            )


def recording_of(document: Path) -> Iterator[Path]:
    """Where the recording may lie that an ELAN document speaks of; other documents do not tell."""
    if document.suffix.lower() == ".eaf":
        yield from Document(document).media()


def _read(document: Path, audio: Path) -> tuple[list[Tier], float]:
    """The tiers of a document, and the second of the recording at which they begin to count."""
    suffix = document.suffix.lower()
    if suffix == ".eaf":
        elan = Document(document)
        return elan.tiers(), elan.origin(audio)
    return (read_textgrid(document) if suffix == ".textgrid" else [_read_labels(document)]), 0.0


def _read_labels(path: Path) -> Tier:
    segments, wrong = [], []
    for number, line in numbered_lines(path):
        if label := _LABEL.fullmatch(line):
            start, end = (float(time.replace(",", ".")) for time in label.group(1, 2))
            segments.append(Segment(f"line-{number}", start, end, label[3] or ""))
        elif line.strip() and not line.startswith(_FREQUENCIES):
            wrong.append(f"line {number}: {line[:40]}")
    if wrong:
        raise IsoglossError(
            f"{path} is a label track with {counted(len(wrong), 'line')} that are no START, END and LABEL between tabs "
            f"({examples(wrong)}); mend or remove each."
        )
    return Tier("", segments)


def _language(tier: Tier, document: Path) -> str:
    try:
        return normalise_language(str(tier.language))
    except IsoglossError as error:
        raise IsoglossError(f'{document}: tier "{tier.name}": {error}') from None
