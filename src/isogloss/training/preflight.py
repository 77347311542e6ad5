"""What is checked before the first step, because hours later is too late."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence as ListOf
from typing import TYPE_CHECKING

import torch

from isogloss.data.loading import text_of, waveform
from isogloss.data.manifests import language_of
from isogloss.errors import AudioError, IsoglossError
from isogloss.heads.ctc import frames_needed
from isogloss.model.model import Model
from isogloss.nn.subsampling import subsampled
from isogloss.training.hardware import autocast
from isogloss.training.recipe import StageRecipe
from isogloss.training.source import Micro, Source
from isogloss.training.stage import Stage, begin_training, only_trying

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

SAMPLED = 20


def preflight(model: Model, stage: Stage, recipe: StageRecipe, source: Source, precision: torch.dtype) -> str:
    """Check a stage before its first step; returns one line with its cost.

    Data readable; every transcript reachable by CTC (frames >= symbols + repeats); the most
    demanding micro-batch computed forward and backward for its time and memory.
    """
    for kind, loader in source.loaders.items():
        if kind != "text":
            check_readable(loader.cuts)
        if kind == "paired":
            check_feasible(model, loader.cuts)
    worst = _worst(source)
    device = next(model.parameters()).device
    began = time.perf_counter()
    begin_training(stage, recipe.freeze, model)
    with only_trying(model), stage.unguarded(), autocast(device, precision):
        on_device = {kind: batch.to(device) for kind, batch in worst.items()}
        stage(on_device, stage.counts(on_device)).total.backward()
    seconds = time.perf_counter() - began
    stage.zero_grad(set_to_none=True)
    hours = seconds * source.micro_batches / source.world * recipe.steps / 3600
    heard = sum(seconds for kind, seconds in recipe.seconds.items() if kind != "text") * recipe.steps / 3600
    return (
        f"{recipe.name}: {recipe.steps} steps, {heard:.1f} hours of audio, at most about "
        f"{_duration(hours)} here; memory so far {_memory(device):.1f} GiB"
    )


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


def check_feasible(model: Model, cuts: ListOf[MonoCut]) -> None:
    """Refuse data in which more than 1 % of the transcripts have more symbols than the encoder has frames."""
    impossible = []
    for cut in cuts:
        samples = torch.tensor(round(cut.duration * 16000))
        frames = int(subsampled(model.frontend.frames(samples)))
        if frames_needed(model.tokens(text_of(cut) or "", language_of(cut))) > frames:
            impossible.append(cut.id)
    if len(impossible) > 0.01 * len(cuts):
        raise IsoglossError(
            f"{len(impossible)} of {len(cuts)} transcripts are too long for their audio (as {impossible[0]}): "
            "check that texts belong to their clips (isogloss inspect), or use larger symbols (sentencepiece)."
        )


def _worst(source: Source) -> Micro:
    """The largest micro-batch of the first round, by padded seconds."""
    micro: Micro = {}
    for kind, plan in source.plans.items():
        batches = plan.round(0)
        largest = max(batches, key=lambda batch: float(plan.durations[batch].max()) * len(batch))
        micro[kind] = source.loaders[kind].load(largest)
    return micro


def _memory(device: torch.device) -> float:
    """Peak GiB of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
