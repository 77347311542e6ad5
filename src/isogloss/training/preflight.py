"""What is checked before the first step, because hours later is too late."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence as ListOf
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from isogloss.data.clips import Clips, readable
from isogloss.data.loading import waveform
from isogloss.errors import AudioError, IsoglossError, counted, lasting
from isogloss.training.footprint import GIB, with_activations
from isogloss.training.health import require_gradients
from isogloss.training.learner import Learner
from isogloss.training.memory import memory_for
from isogloss.training.stage import Counts, Sums, begin_training, on_device, only_trying
from isogloss.training.streams import Source, Stream

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

SAMPLED = 20
CHECKED = 10_000
"""Clips that are opened before the first step, and those whose cuts objectives look at, at most."""


def preflight(
    learner: Learner, streams: dict[str, Stream], source: Source, measured: float | None = None
) -> str:
    """Check a stage before its first step; returns one line with its cost.

    Data readable; what each objective checks of them; the most demanding micro-batch computed forward and backward for
    its time, its memory, and for parameters that no objective reaches. measured: seconds a step takes, if known.
    """
    stage, device = learner.stage, learner.machine.device
    for stream in streams.values():
        if stream.needs.audio:
            check_readable(stream.clips)
    for name, objective in stage.objectives.items():
        objective.check(sampled(streams[stage.streams[name]].clips))
    worst = source.largest()
    began = time.perf_counter()
    begin_training(stage)
    with memory_for(worst), only_trying(stage), stage.guards.lifted(), learner.autocast():
        micro = on_device(worst, device)
        counts = stage.counts(micro)
        sums = stage(micro, counts)
        sums.total.backward()
    seconds = time.perf_counter() - began
    check_counts(sums, counts)
    silent = {name for name, parameter in learner.parameters.items() if parameter.grad is None}
    learner.forget()
    require_gradients(silent, set(learner.parameters), stage.recipe.name)
    recipe = stage.recipe
    longest = seconds * source.micro_batches / source.world
    hours = (longest if measured is None else measured) * recipe.steps / 3600
    about = "at most about" if measured is None else "about"
    return (
        f"{recipe.name}: {counted(recipe.steps, 'step')}, {stage.hours(recipe.steps):.1f} hours of audio, "
        f"{about} {lasting(hours * 3600)} here; {_memory(learner)}{source.rounding()}"
    )


def check_counts(sums: Sums, counts: Counts) -> None:
    """What objectives say beforehand of their terms' counts must be so: else micro-batches do not add up."""
    for name, term in sums.terms.items():
        announced = counts.get(name, counts[name.partition("/")[0]])
        if float(term.count) != announced:
            raise RuntimeError(f"{name} is a mean over {float(term.count)}, and was announced as one over {announced}")


def sampled(clips: Clips) -> list[MonoCut]:
    """At most `CHECKED` clips, spread over all."""
    every = ceil(len(clips) / CHECKED)
    return list(readable(clips.select(np.arange(len(clips)) % every == 0)))


def check_readable(cuts: ListOf[MonoCut]) -> None:
    """Open a few clips spread over the data; a corpus that moved is noticed at once."""
    chosen = range(0, len(cuts), max(1, len(cuts) // SAMPLED))
    broken = []
    for place in chosen:
        try:
            waveform(cuts[place])
        except AudioError as error:
            broken.append(error)
    if len(broken) * 2 > len(chosen):
        raise IsoglossError(f"{len(broken)} of {len(chosen)} clips tried cannot be read; the first: {broken[0]}")


def _memory(learner: Learner) -> str:
    """What of the GPU's memory is taken and by what; of a CPU's, the peak of this process."""
    device = learner.machine.device
    if device.type == "cuda":
        peak, room = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        found = with_activations(learner.footprint(), peak, begun=bool(learner.optimizer.state))
        return f"memory: {found} of {room / GIB:.1f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"memory so far {peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
