"""How the command line speaks: tables on standard output, remarks and errors on standard error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from isogloss.errors import IsoglossError, printable

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def results() -> Console:
    """Tables for standard output; a pipe has no width of its own."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def remarks() -> Console:
    """Everything that is not the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def write(text: str) -> None:
    """A result, at once: a reader down the pipe need not wait for the next one."""
    print(text, end="", flush=True)


def note(text: str) -> None:
    """A sentence beside the result."""
    remarks().print(_shown(text), markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """A sentence about what went wrong."""
    remarks().print(_shown(text), style="red", markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    # Sentences name files, and the name of a file may hold anything.
    return "\n".join(map(printable, text.split("\n")))


@contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
    """A line on the terminal that counts and says how long it will take: `advance(unit, done, total)` moves it.

    Silent elsewhere.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = remarks()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, count="")

        def advance(unit: str, done: int, total: int | None = None) -> None:
            count = f"{done} {unit}" if total is None else f"{done} of {total} {unit}"
            bar.update(task, completed=done, total=total)
            seconds = bar.tasks[task].time_remaining
            left = f", {timedelta(seconds=round(seconds))} left" if seconds else ""
            bar.update(task, count=f"{count}{left}")

        yield advance


class AudioBar:
    """A line on the terminal with the audio that is done and the time left; silent elsewhere."""

    def __init__(self, what: str):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = remarks()
        self.shown = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        # Results go to standard output as they are, and not through the bar's console, which is standard error.
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not self.shown, redirect_stdout=False
        )
        self._task = self._bar.add_task(what, total=None, count="")

    def __enter__(self) -> AudioBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: float, total: float) -> None:
        """Seconds of audio."""
        count = f"{_clock(done)} of {_clock(total)} of audio" if total else f"{_clock(done)} of audio"
        self._bar.update(self._task, completed=done, total=total or None, count=count)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The line makes room for what is written meanwhile."""
        self._bar.stop()
        yield
        self._bar.start()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def is_mendable(error: Exception) -> bool:
    """Whether the user can do something about an error; else it is a bug."""
    known = _is_disk_full(error) or _is_out_of_memory(error) or _has_lost_another(error)
    return known or isinstance(error, IsoglossError | OSError)


def sentence(error: Exception) -> str:
    """What went wrong, for people."""
    if _is_disk_full(error):
        name = getattr(error, "filename", None)
        where = f" while writing {name}" if name else ""
        return f"The disk is full{where}; free some space and go on. Nothing was left half-written."
    if isinstance(error, IsoglossError):
        return str(error)
    if _is_out_of_memory(error):
        return "There is not enough memory; give less audio at once (when training: a smaller batch_seconds)."
    if _has_lost_another(error):
        return "Another process of this run has ended; see what it said."
    if isinstance(error, OSError):
        return f"Cannot use {error.filename or 'a file'}: {error.strerror or error}."
    name = type(error).__name__
    return f"This is a bug ({name}: {error}); run again with --debug for the traceback, and report it."


def _is_disk_full(error: Exception) -> bool:
    # Writers outside Python wrap the system's message in exceptions of their own.
    return getattr(error, "errno", None) in NO_SPACE or "No space left on device" in str(error)


def _has_lost_another(error: Exception) -> bool:
    """Whether a process stopped because another that it trains with is gone: so Gloo says it."""
    return isinstance(error, RuntimeError) and "by peer" in str(error)


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error)
    return isinstance(error, MemoryError) or "CUDA out of memory" in said or "can't allocate memory" in said
