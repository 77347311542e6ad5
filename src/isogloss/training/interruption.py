"""SIGTERM: what a scheduler sends before it takes a machine away, and what a run does then."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from threading import current_thread, main_thread
from types import FrameType


class Interrupted(SystemExit):
    """A run that was asked to end, and has saved itself at `step`: the process ends well where nobody catches it."""

    def __init__(self, step: int):
        super().__init__(0)
        self.step = step


@contextmanager
def when_terminated(do: Callable[[], None]) -> Iterator[None]:
    """SIGTERM does this instead of ending the process; only the main thread can say so, elsewhere nothing changes.

    A process that another one has started ignores SIGTERM from then on: it is on its way out, and its parent hands on
    what it has heard itself.
    """
    if current_thread() is not main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        do()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        leaves = asked and parent_process() is not None
        signal.signal(signal.SIGTERM, signal.SIG_IGN if leaves else before or signal.SIG_DFL)
