"""The recordings a command is given: files, folders and standard input, one of their channels or each, in groups.

A broken recording is reported and left out; the others are still done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from isogloss.errors import AudioError, IsoglossError

if TYPE_CHECKING:
    from isogloss.audio.channels import Channel
    from isogloss.audio.sources import Source
    from isogloss.model.recogniser import Progress

STANDARD_INPUT = "-"
GROUP_SECONDS = 600.0  # of audio in memory at once
GROUP_RECORDINGS = 64

Result = TypeVar("Result")


class Work(Protocol[Result]):
    """What is done with some recordings at once: a result for each, or why it could not be read."""

    def __call__(
        self, audio: list[Any], *, channel: list[Channel], on_progress: Progress
    ) -> list[Result | AudioError]: ...


@dataclass(frozen=True)
class Recording:
    """name: for people. source: what to read. place: where its result goes in a folder, no suffix."""

    name: str
    source: Source
    place: Path
    channel: Channel = "mix"


def find_recordings(arguments: Sequence[str], channel: str = "mix") -> list[Recording]:
    """The recordings that arguments name; folders are searched to the bottom, in order of name.

    channel: a number from 1, `mix` for the mean of all, or `each`, which makes a recording of every channel. Raises
    IsoglossError for another, for a folder without audio and for standard input named twice. A file that
    is missing is found missing when it is read.
    """
    from isogloss.audio.channels import parse_channel
    from isogloss.audio.sources import describe
    from isogloss.data.folders import audio_below

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
    wanted = parse_channel(channel)
    return [one for recording in found for one in _channels(recording, wanted)]


def _channels(recording: Recording, wanted: Channel | Literal["each"]) -> list[Recording]:
    """The channel of a recording that is asked for, or each."""
    from isogloss.audio.reading import info
    from isogloss.audio.sources import drain

    if wanted != "each":
        return [replace(recording, channel=wanted)]
    source = recording.source
    if not isinstance(source, Path | str | bytes):  # what comes through a pipe is read once
        source = drain(source)
    try:
        channels = range(1, info(source).channels + 1)
    except AudioError:
        return [replace(recording, source=source)]  # told when it is read
    name, place = recording.name, recording.place
    return [
        Recording(f"{name} channel {channel}", source, place.with_name(f"{place.name}-{channel}"), channel)
        for channel in channels
    ]


def is_recording(argument: str) -> bool:
    """Whether this is a file, and no sentence; raises IsoglossError for the name of an audio file that is missing."""
    from isogloss.data.folders import is_audio

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
    work: Work[Result],
    report: Callable[[AudioError], None],
    on_progress: Progress | None = None,
) -> Iterator[tuple[Recording, Result]]:
    """`work` done on groups of recordings, in order, each with its result; why one is broken goes to `report`.

    on_progress: told the seconds of audio done, and all, as far as headers tell.
    """
    timed: Iterable[tuple[Recording, float]] = ((recording, _seconds(recording)) for recording in recordings)
    total = done = 0.0
    if on_progress is not None:
        timed = list(timed)
        total = sum(seconds for _, seconds in timed)
    for group in _groups(timed):

        def advance(seconds: float, _: float, before: float = done) -> None:
            if on_progress is not None:
                on_progress(before + seconds, total)

        channels = [recording.channel for recording, _ in group]
        results = work([recording.source for recording, _ in group], channel=channels, on_progress=advance)
        for (recording, seconds), result in zip(group, results, strict=True):
            done += seconds
            if isinstance(result, AudioError):
                report(result)
            else:
                yield recording, result
        if on_progress is not None:
            on_progress(done, total)


def _groups(timed: Iterable[tuple[Recording, float]]) -> Iterator[list[tuple[Recording, float]]]:
    """As many recordings at once as may be in memory."""
    group: list[tuple[Recording, float]] = []
    for recording, seconds in timed:
        group.append((recording, seconds))
        if len(group) == GROUP_RECORDINGS or sum(length for _, length in group) >= GROUP_SECONDS:
            yield group
            group = []
    if group:
        yield group


def _seconds(recording: Recording) -> float:
    """About how long a file is, without decoding it; 0 of what is none, or comes through a pipe."""
    from isogloss.audio.reading import estimated_seconds

    if not isinstance(recording.source, Path | bytes):
        return 0.0
    try:
        return estimated_seconds(recording.source)
    except AudioError:
        return 0.0
