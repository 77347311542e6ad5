"""When the memory of the device runs out: on what it was, in words."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from isogloss.audio.reading import SAMPLE_RATE
from isogloss.errors import IsoglossError, counted
from isogloss.training.streams import Micro


class OutOfMemory(IsoglossError):
    """The memory of the device ran out, on something that it names."""


@contextmanager
def memory_for(what: Micro | str) -> Iterator[None]:
    """Raises `OutOfMemory` where the device has no memory for what is done inside to a batch, or to something else."""
    try:
        yield
    except torch.OutOfMemoryError:
        named = what if isinstance(what, str) else described(what)
        raise OutOfMemory(f"The memory of the device ran out on {named}") from None


def described(micro: Micro) -> str:
    """The clips of a micro-batch: `14 clips of up to 6.9 s and 20 texts`."""
    said = []
    for batch in {id(batch.audio): batch for batch in micro.values()}.values():  # those of one stream share their audio
        seconds = batch.audio.values.shape[1] / SAMPLE_RATE
        rows = len(batch.ids)
        said.append(f"{counted(rows, 'clip')} of up to {seconds:.1f} s" if seconds else counted(rows, "text"))
    return " and ".join(said)
