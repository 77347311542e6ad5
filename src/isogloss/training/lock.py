"""One run in a folder at a time."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from isogloss.errors import IsoglossError

LOCK = ".lock"
PATIENCE = 10.0
"""Seconds in which the processes of a run that was killed come to their end."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; raises IsoglossError where somebody does.

    The lock is the system's: it goes with the process, however that ends, and nothing is left to be cleared away. A
    folder in which nothing was written goes too.
    """
    path = folder / LOCK
    deadline = time.monotonic() + PATIENCE
    while (file := _locked(path)) is None:
        if time.monotonic() > deadline:
            who = path.read_text(encoding="utf-8") or "another process"
            raise IsoglossError(f"{folder} is being trained by {who}; wait for it, or choose another --out.")
        time.sleep(0.1)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if list(folder.iterdir()) == [path]:
                path.unlink()
                folder.rmdir()


def _locked(path: Path) -> TextIO | None:
    """The file, locked; None where somebody else has it, or has just taken it away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
