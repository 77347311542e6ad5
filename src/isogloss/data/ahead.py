"""Results made ahead by other processes, in the order in which they are asked for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

from isogloss.errors import IsoglossError

Request = TypeVar("Request")
Result = TypeVar("Result")
AHEAD = 2
"""Results that each process makes ahead."""


class _Results(Dataset[Any], Generic[Request, Result]):
    """What `make` makes of a request; an error is a result too, for torch would bury its sentence in a traceback."""

    def __init__(self, make: Callable[[Request], Result]):
        self.make = make

    def __getitem__(self, request: Request) -> Result | IsoglossError:
        try:
            return self.make(request)
        except IsoglossError as error:
            return error


def made_ahead(
    make: Callable[[Request], Result], requests: Iterable[Request], workers: int, *, pinned: bool = False
) -> Generator[Result]:
    """What `make` makes of each request, made ahead by so many processes; with 0, in this one and when it is asked for.

    pinned: results come in memory from which a GPU copies while it computes; they have a `pin_memory` then.
    The processes begin as copies of this one, so that what `make` knows takes no memory twice. They end when the
    iterator is closed. Raises the IsoglossError that `make` raised, in its place, and one where a process was killed.
    """
    # Elsewhere than on Linux, a copy of a process may not use the system's libraries.
    context = "fork" if workers and sys.platform == "linux" else None
    loader = DataLoader(
        _Results(make),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context=context,
        pin_memory=pinned,
        worker_init_fn=_begin,
    )
    try:
        for result in loader:
            if isinstance(result, IsoglossError):
                raise result
            yield result
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise IsoglossError(
            "A process that reads audio was killed, as happens where memory or shared memory (/dev/shm) is full; "
            "set data.workers lower (0 reads in the training process), then go on with --resume."
        ) from None


def _begin(number: int) -> None:
    """A reading process ends with the training process: schedulers ask both, and that one may need what is read yet."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
