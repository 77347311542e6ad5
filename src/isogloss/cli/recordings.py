"""The recordings a command is given: files, folders, prepared corpora, standard input; one of their channels or each.

They are worked on in groups, by this process or by those of a cluster. A broken recording is reported and left out; the
others are still done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from isogloss.errors import AudioError, IsoglossError

if TYPE_CHECKING:
    from isogloss.audio.channels import Channel
    from isogloss.audio.reading import Stretch
    from isogloss.audio.sources import Source
    from isogloss.model.recogniser import Progress

STANDARD_INPUT = "-"
GROUP_SECONDS = 600.0  # of audio in memory at once
GROUP_RECORDINGS = 64

Result = TypeVar("Result")


@dataclass(frozen=True)
class Recording:
    """name: for people. source: what to read. place: where its result goes in a folder, no suffix."""

    name: str
    source: Source | Stretch
    place: Path
    channel: Channel = "mix"


Group: TypeAlias = list[tuple[Recording, float]]
"""Recordings that are worked on at once, each with its seconds."""


class Work(Protocol[Result]):
    """What is done with some recordings at once: a result for each, or why it could not be read."""

    def __call__(self, recordings: list[Recording], on_progress: Progress) -> list[Result | AudioError]: ...


class Run(Protocol[Result]):
    """Work done on groups: each as it is done, with its results. on_progress: told the seconds done of the next."""

    def __call__(
        self, groups: Iterable[Group], on_progress: Progress
    ) -> Iterator[tuple[Group, list[Result | AudioError]]]: ...


def find_recordings(arguments: Sequence[str], channel: str = "mix") -> list[Recording]:
    """The recordings that arguments name; folders are searched to the bottom, in order of name.

    A prepared corpus stands for its clips, which say themselves which channel is meant. channel: of the others, a
    number from 1, `mix` for the mean of all, or `each`, which makes a recording of every channel. Raises IsoglossError
    for another, for a folder without audio and for standard input named twice. A file that is missing is found missing
    when it is read.
    """
    from isogloss.audio.channels import parse_channel
    from isogloss.audio.sources import describe
    from isogloss.data.folders import audio_below
    from isogloss.data.manifests import CUTS

    if arguments.count(STANDARD_INPUT) > 1:
        raise IsoglossError("Standard input (-) can be read only once; give it once.")
    wanted = parse_channel(channel)
    found: list[Recording] = []
    for argument in arguments:
        path = Path(argument)
        if (path / CUTS).is_file():
            found += _clips(path)
            continue
        if argument == STANDARD_INPUT:
            named = [Recording("standard input", sys.stdin.buffer, Path("stdin"))]
        elif path.is_dir():
            files = audio_below(path)
            named = [Recording(describe(f), f, f.relative_to(path).with_suffix("")) for f in files]
        else:
            named = [Recording(describe(path), path, Path(path.stem or "audio"))]
        found += [one for recording in named for one in _channels(recording, wanted)]
    return found


def _clips(corpus: Path) -> Iterator[Recording]:
    """The clips of a prepared corpus, named by their ids."""
    from isogloss.audio.reading import Stretch
    from isogloss.data.manifests import audio_of, channel_of, read_cuts

    for cut in read_cuts(corpus):
        if cut.recording is None:
            continue
        audio = audio_of(cut)
        is_file = isinstance(audio, Path) and cut.duration == cut.recording.duration
        source = audio if is_file else Stretch(audio, cut.start, cut.duration)
        parts = [part for part in Path(cut.id).parts if part not in ("/", "..")]  # results stay in their folder
        yield Recording(cut.id, source, Path(*parts), channel_of(cut))


def _channels(recording: Recording, wanted: Channel | Literal["each"]) -> list[Recording]:
    """The channel of a recording that is asked for, or each."""
    from isogloss.audio.reading import info
    from isogloss.audio.sources import drain

    if wanted != "each":
        return [replace(recording, channel=wanted)]
    source: Any = recording.source
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
    run: Run[Result],
    report: Callable[[AudioError], None],
    on_progress: Progress | None = None,
) -> Iterator[tuple[Recording, Result]]:
    """Each recording with its result, as they are done in groups; why one is broken goes to `report`.

    on_progress: told the seconds of audio done, and all, as far as headers tell.
    """
    timed: Iterable[tuple[Recording, float]] = ((recording, _seconds(recording)) for recording in recordings)
    total = done = 0.0
    if on_progress is not None:
        timed = list(timed)
        total = sum(seconds for _, seconds in timed)
    progress = on_progress or _nobody

    def advance(seconds: float, _: float) -> None:
        progress(done + seconds, total)

    for group, results in run(_groups(timed), advance):
        for (recording, seconds), result in zip(group, results, strict=True):
            done += seconds
            if isinstance(result, AudioError):
                report(result)
            else:
                yield recording, result
        progress(done, total)


def by_method(method: Callable[..., list[Result | AudioError]]) -> Work[Result]:
    """A method of a recogniser as work on recordings."""

    def work(recordings: list[Recording], on_progress: Progress) -> list[Result | AudioError]:
        channels = [recording.channel for recording in recordings]
        sources = [recording.source for recording in recordings]
        return method(sources, channel=channels, errors="return", on_progress=on_progress)

    return work


def here(work: Work[Result]) -> Run[Result]:
    """Work done by this process, in order."""

    def run(groups: Iterable[Group], on_progress: Progress) -> Iterator[tuple[Group, list[Result | AudioError]]]:
        for group in groups:
            yield group, work([recording for recording, _ in group], on_progress)

    return run


def on_ray(opened: Callable[[str], Work[Result]], address: str, device: str) -> Run[Result]:
    """Work done by the processes of a Ray cluster, in whatever order; `opened` loads on a device what it needs in each.

    It is opened here too, so that a mistake in the model or the options is told before a cluster is started. Recordings
    whose process is killed every time are done once more, one by one, so that only those to blame are reported.
    """
    from isogloss.audio.reading import Stretch
    from isogloss.serving.cluster import connected, require_ray, spread

    require_ray(address)
    opened("cpu")([], _nobody)
    folder = Path.cwd()

    def begin() -> Callable[[Group], list[Result | AudioError]]:
        os.chdir(folder)  # relative paths mean the same
        work = opened(device)
        return lambda group: work([recording for recording, _ in group], _nobody)

    def run(groups: Iterable[Group], on_progress: Progress) -> Iterator[tuple[Group, list[Result | AudioError]]]:
        waiting = list(groups)
        if not all(isinstance(recording.source, Path | Stretch) for group in waiting for recording, _ in group):
            raise IsoglossError("Workers of a cluster cannot read standard input (-); give files, or leave out --ray.")
        with connected(address):
            for _ in range(2):
                again: list[Group] = []
                for number, results in spread(begin, waiting, device):
                    if results is None:
                        again += [[one] for one in waiting[number]]
                    else:
                        yield waiting[number], results
                waiting = again
        for group in waiting:
            yield group, [_killed(recording) for recording, _ in group]

    return run


def _killed(recording: Recording) -> AudioError:
    said = f"{recording.name} was given up: the process that worked on it was killed each time; try it without --ray."
    return AudioError(said, "unreadable")


def _nobody(done: float, total: float) -> None:
    """Is told of progress where nobody watches."""


def _groups(timed: Iterable[tuple[Recording, float]]) -> Iterator[Group]:
    """As many recordings at once as may be in memory."""
    group: Group = []
    for recording, seconds in timed:
        group.append((recording, seconds))
        if len(group) == GROUP_RECORDINGS or sum(length for _, length in group) >= GROUP_SECONDS:
            yield group
            group = []
    if group:
        yield group


def _seconds(recording: Recording) -> float:
    """About how long a file is, without decoding it; 0 of what is none, or comes through a pipe."""
    from isogloss.audio.reading import Stretch, estimated_seconds

    if isinstance(recording.source, Stretch):
        return recording.source.duration
    if not isinstance(recording.source, Path | bytes):
        return 0.0
    try:
        return estimated_seconds(recording.source)
    except AudioError:
        return 0.0
