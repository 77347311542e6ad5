"""What is checked before the first step, because hours later is too late."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence as ListOf
from typing import TYPE_CHECKING

import torch
from torch import nn

from isogloss.data.loading import waveform, with_tensors
from isogloss.errors import AudioError, IsoglossError, counted, lasting
from isogloss.training.hardware import autocast
from isogloss.training.health import require_gradients
from isogloss.training.stage import Counts, Stage, Sums, begin_training, only_trying
from isogloss.training.streams import Micro, Source, Stream

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

SAMPLED = 20


def preflight(
    stage: Stage,
    parameters: dict[str, nn.Parameter],
    streams: dict[str, Stream],
    source: Source,
    precision: torch.dtype,
    measured: float | None = None,
) -> str:
    """Check a stage before its first step; returns one line with its cost.

    Data readable; what each objective checks of them; the most demanding micro-batch computed forward and backward for
    its time, its memory, and for `parameters` that no objective reaches. measured: seconds a step takes, if known.
    """
    for stream in streams.values():
        if stream.needs.audio:
            check_readable(stream.cuts)
    for name, objective in stage.objectives.items():
        objective.check(streams[stage.streams[name]].cuts)
    worst = source.largest()
    device = next(stage.model.parameters()).device
    began = time.perf_counter()
    begin_training(stage)
    with only_trying(stage.model), stage.guards.lifted(), autocast(device, precision):
        micro = on_device(worst, device)
        counts = stage.counts(micro)
        sums = stage(micro, counts)
        sums.total.backward()
    seconds = time.perf_counter() - began
    check_counts(sums, counts)
    silent = {name for name, parameter in parameters.items() if parameter.grad is None}
    stage.zero_grad(set_to_none=True)
    require_gradients(silent, set(parameters), stage.recipe.name)
    recipe = stage.recipe
    longest = seconds * source.micro_batches / source.world
    hours = (longest if measured is None else measured) * recipe.steps / 3600
    about = "at most about" if measured is None else "about"
    return (
        f"{recipe.name}: {counted(recipe.steps, 'step')}, {stage.hours(recipe.steps):.1f} hours of audio, "
        f"{about} {lasting(hours * 3600)} here; memory so far {_memory(device):.1f} GiB{source.rounding()}"
    )


def on_device(micro: Micro, device: torch.device) -> Micro:
    """The batches on a device, where the copy need not have arrived yet."""
    return with_tensors(micro, lambda tensor: tensor.to(device, non_blocking=True))


def check_counts(sums: Sums, counts: Counts) -> None:
    """What objectives say beforehand of their terms' counts must be so: else micro-batches do not add up."""
    for name, term in sums.terms.items():
        announced = counts.get(name, counts[name.partition("/")[0]])
        if float(term.count) != announced:
            raise RuntimeError(f"{name} is a mean over {float(term.count)}, and was announced as one over {announced}")


def check_readable(cuts: ListOf[MonoCut]) -> None:
    """Open a few clips spread over the data; a corpus that moved is noticed at once."""
    chosen = cuts[:: max(1, len(cuts) // SAMPLED)]
    broken = []
    for cut in chosen:
        try:
            waveform(cut)
        except AudioError as error:
            broken.append(error)
    if len(broken) * 2 > len(chosen):
        raise IsoglossError(f"{len(broken)} of {len(chosen)} clips tried cannot be read; the first: {broken[0]}")


def _memory(device: torch.device) -> float:
    """Peak GiB of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
