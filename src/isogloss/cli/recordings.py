"""The recordings a command is given: files, folders and standard input, worked on in groups.

A broken recording is reported and left out; the others are still done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
    from isogloss.data.importers import audio_below

    found: list[Recording] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STANDARD_INPUT:
            found.append(Recording("standard input", sys.stdin.buffer, Path("stdin")))
        elif path.is_dir():
            files = audio_below(path)
            found += [Recording(describe(f), f, f.relative_to(path).with_suffix("")) for f in files]
        else:
            found.append(Recording(describe(path), path, Path(path.stem or "audio")))
    if arguments.count(STANDARD_INPUT) > 1:
        raise IsoglossError("Standard input (-) can be read only once; give it once.")
    return found


def is_recording(argument: str) -> bool:
    """Whether this is a file, and no sentence; raises IsoglossError for the name of an audio file that is missing."""
    from isogloss.data.importers import is_audio

    try:
        if Path(argument).is_file():
            return True
    except OSError:  # longer than any name may be
        return False
    if " " not in argument and is_audio(Path(argument)):
        raise IsoglossError(f"{argument} does not exist.")
    return False


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
    work: Callable[[list[Any]], list[Result]],
    report: Callable[[AudioError], None],
) -> Iterator[tuple[Recording, Result]]:
    """`work` done on groups of waveforms, with the recordings in order; broken ones go to `report`.

    A long file is a group of its own and given as its path: `work` reads it piece by piece.
    """
    group: list[tuple[Recording, Waveform | Path]] = []
    seconds = 0.0
    for recording, audio in _readable(recordings, report):
        alone = isinstance(audio, Path)
        if group and (alone or len(group) == GROUP_RECORDINGS or seconds > GROUP_SECONDS):
            yield from _done(group, work, report)
            group, seconds = [], 0.0
        group.append((recording, audio))
        seconds += GROUP_SECONDS + 1 if isinstance(audio, Path) else len(audio) / 16000
    yield from _done(group, work, report)


def _done(
    group: list[tuple[Recording, Waveform | Path]],
    work: Callable[[list[Any]], list[Result]],
    report: Callable[[AudioError], None],
) -> Iterator[tuple[Recording, Result]]:
    try:
        results = work([audio for _, audio in group]) if group else []
    except AudioError as error:  # of a long file, which turned out to be broken while it was read
        report(error)
        return
    yield from zip((recording for recording, _ in group), results, strict=True)


def _readable(
    recordings: Sequence[Recording], report: Callable[[AudioError], None]
) -> Iterator[tuple[Recording, Waveform | Path]]:
    """The waveform of each recording that can be read; of a long file its path."""
    from isogloss.audio.reading import info, read

    for recording in recordings:
        source = recording.source
        try:
            long = isinstance(source, Path) and info(source).seconds > GROUP_SECONDS
            yield recording, source if isinstance(source, Path) and long else read(source)
        except AudioError as error:
            report(error)
