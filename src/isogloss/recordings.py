"""The recordings a command is given: files, folders and standard input, worked on in groups.

A broken recording is reported and left out; the others are still done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from isogloss.errors import AudioError, IsoglossError

if TYPE_CHECKING:
    from isogloss.audio.reading import Waveform
    from isogloss.audio.sources import Source

STANDARD_INPUT = "-"
GROUP_SECONDS = 600.0  # of audio in memory at once
GROUP_RECORDINGS = 64

Result = TypeVar("Result")


@dataclass(frozen=True)
class Recording:
    """name: for people. source: what to read. place: where its result goes in a folder, no suffix."""

    name: str
    source: Source
    place: Path


def find_recordings(arguments: Sequence[str]) -> list[Recording]:
    """The recordings that arguments name; folders are searched to the bottom, in order of name.

    Raises IsoglossError for a folder without audio and for standard input named twice. A file that
    is missing is found missing when it is read.
    """
    from isogloss.audio.sources import describe

    found: list[Recording] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STANDARD_INPUT:
            found.append(Recording("standard input", sys.stdin.buffer, Path("stdin")))
        elif path.is_dir():
            files = _audio_in(path)
            found += [Recording(describe(f), f, f.relative_to(path).with_suffix("")) for f in files]
        else:
            found.append(Recording(describe(path), path, Path(path.stem or "audio")))
    if arguments.count(STANDARD_INPUT) > 1:
        raise IsoglossError("Standard input (-) can be read only once; give it once.")
    return found


def places(recordings: Sequence[Recording], folder: Path, suffix: str) -> dict[Recording, Path]:
    """The file each result is written to; raises IsoglossError if two would share one."""
    taken: dict[Path, Recording] = {}
    for recording in recordings:
        path = folder / recording.place.with_name(recording.place.name + suffix)
        if path in taken:
            raise IsoglossError(
                f"{taken[path].name} and {recording.name} would both be written to {path}; "
                "rename one, or do them one after another into different folders."
            )
        taken[path] = recording
    return {recording: path for path, recording in taken.items()}


def process(
    recordings: Sequence[Recording],
    work: Callable[[list[Waveform]], list[Result]],
    report: Callable[[AudioError], None],
) -> Iterator[tuple[Recording, Result]]:
    """`work` done on groups of waveforms, with the recordings in order; broken ones go to `report`."""
    group: list[tuple[Recording, Waveform]] = []
    for recording, waveform in _readable(recordings, report):
        group.append((recording, waveform))
        if len(group) == GROUP_RECORDINGS or sum(len(w) for _, w in group) > GROUP_SECONDS * 16000:
            yield from _done(group, work)
            group = []
    yield from _done(group, work)


def _done(
    group: list[tuple[Recording, Waveform]], work: Callable[[list[Waveform]], list[Result]]
) -> Iterator[tuple[Recording, Result]]:
    results = work([waveform for _, waveform in group]) if group else []
    yield from zip((recording for recording, _ in group), results, strict=True)


def _readable(
    recordings: Sequence[Recording], report: Callable[[AudioError], None]
) -> Iterator[tuple[Recording, Waveform]]:
    from isogloss.audio.reading import read

    for recording in recordings:
        try:
            yield recording, read(recording.source)
        except AudioError as error:
            report(error)


def _audio_in(folder: Path) -> list[Path]:
    from isogloss.data.importers import AUDIO_SUFFIXES

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise IsoglossError(f"{folder} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}.")
    return files
