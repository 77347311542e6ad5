"""Where results of recordings go: standard output, a folder with a file for each, or a file of JSON lines for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from isogloss.cli import terminal
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.cli.recordings import Recording

LINES = ".jsonl"

Resume = Annotated[bool, typer.Option("--resume", help="leave out recordings whose result is in --out already")]


class Output(Protocol):
    """Takes the text of each recording's result, and knows which it has already."""

    def has(self, recording: Recording) -> bool: ...

    def write(self, recording: Recording, text: str) -> None: ...


class StandardOutput:
    """Results as they come. heading: before the first. named: whether each begins with its name."""

    def __init__(self, heading: str = "", named: bool = False):
        self._heading, self._named = heading, named

    def has(self, recording: Recording) -> bool:
        return False

    def write(self, recording: Recording, text: str) -> None:
        terminal.write(self._heading + f"{recording.name}\t" * self._named + text)
        self._heading = ""


class Files:
    """A file for each recording, whole or not there. paths: where they go. heading: of each."""

    def __init__(self, paths: dict[Recording, Path], heading: str = ""):
        self.paths, self._heading = paths, heading

    def has(self, recording: Recording) -> bool:
        return self.paths[recording].is_file()

    def write(self, recording: Recording, text: str) -> None:
        from isogloss.files import write_text

        write_text(self.paths[recording], self._heading + text)
        print(self.paths[recording])


class Lines:
    """A file that grows by a line of JSON with each result. resume: go on with what is there.

    Raises IsoglossError for a file that is there and not to be resumed, or holds something else.
    """

    def __init__(self, path: Path, resume: bool):
        from isogloss.files import require_writable

        require_writable(path)
        if path.exists() and not resume:
            raise IsoglossError(f"{path} exists already; give --resume to go on with it, or choose another file.")
        self._path = path
        self._known = _mended(path) if path.exists() else set()

    def has(self, recording: Recording) -> bool:
        return recording.name in self._known

    def write(self, recording: Recording, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def _mended(path: Path) -> set[str]:
    """The recordings whose results a file holds, once what was cut off while it was written is removed from its end."""
    known: set[str] = set()
    whole = 0
    with path.open("rb+") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                known.add(json.loads(line)["audio"])
            except (ValueError, KeyError, TypeError):
                raise IsoglossError(f"{path}, line {number}: not a result of ours; choose another file.") from None
            whole += len(line)
        file.truncate(whole)
    return known


def remaining(recordings: Sequence[Recording], output: Output, out: Path | None, resume: bool) -> list[Recording]:
    """The recordings that are still to be done: all of them, or, to resume, those that are not in the output."""
    if not resume:
        return list(recordings)
    if out is None:
        raise typer.BadParameter("--resume goes on with a file or folder; add --out")
    left = [recording for recording in recordings if not output.has(recording)]
    if len(left) < len(recordings):
        terminal.note(f"{len(recordings) - len(left)} of {len(recordings)} recordings are in {out} already.")
    return left
