"""A stage that fits instead of training; what it finds is an artefact of the run.

    RUN/artefacts/NAME/artefact.json          what was fitted, to which data, figures, SHA-256 of the files
                       tensors.safetensors    centroids, statistics, …
                       labels.safetensors     of clips by id, where there are any
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isogloss.data.ahead import made_ahead
from isogloss.data.clips import Clips, joined
from isogloss.data.loading import Batch, Loader
from isogloss.errors import IsoglossError, counted
from isogloss.files import atomic_folder, read_json, sha256, write_json
from isogloss.model.folder import read_tensors, write_tensors
from isogloss.objectives.fit import Artefact, Fit
from isogloss.training.checkpoint import essence
from isogloss.training.hardware import Machine, wait_for_group
from isogloss.training.journal import Journal
from isogloss.training.recipe import DataRecipe, FitRecipe
from isogloss.training.run import Run

ABOUT, TENSORS, LABELS = "artefact.json", "tensors.safetensors", "labels.safetensors"


def fit_stage(run: Run, journal: Journal, number: int, step: int) -> None:
    """Fit, or take what was fitted before the run was cut off; the model and later stages have it then.

    The first process fits, and the others wait for it: they take what it wrote. number: of the stage in the recipe.
    step: steps of the run before it. Raises IsoglossError where a run to be resumed is past the stage and has lost
    what it fitted, for the model is no longer the one that it was fitted to.
    """
    recipe = run.recipe.stages[number]
    assert isinstance(recipe, FitRecipe)
    folder = run.folder / "artefacts" / recipe.name
    plain = essence(run.recipe.plain())
    about = {
        "fit": recipe.fit.plain(),
        "fingerprint": run.data.fingerprint,
        "before": {"seed": plain["seed"], "model": plain["model"], "stages": plain["stages"][:number]},
    }
    fit = recipe.fit.build(run.model.spec)
    if run.machine.rank == 0 and not _fitted(folder, about):
        if run.found is not None and run.found.state["stage"] > number:
            raise IsoglossError(f"{folder} is missing or was changed; restore it, or train into another --out.")
        stream = run.data.stream(fit.needs, recipe.name)
        run.model.to(run.machine.device).eval()
        with torch.no_grad():
            artefact = fit.fit(run.model, run_through(run, recipe, stream.clips))
            labels = _labels(run, recipe, fit, artefact, stream.clips) if fit.labels else {}
        write_artefact(folder, artefact, labels, about)
        figures = "".join(f", {name} {value:g}" for name, value in artefact.figures.items())
        journal.say(f"{recipe.name}: fitted {recipe.fit.name} to {counted(len(stream.clips), 'clip')}{figures}")
        journal.record({"event": "fit", "stage": recipe.name, "step": step} | artefact.figures)
    wait_for_group()
    artefact, labels = read_artefact(folder)
    fit.apply(run.model, artefact)
    if labels:
        run.labels[recipe.name] = labels


def run_through(run: Run, recipe: FitRecipe, clips: Clips) -> Batches:
    """Clips in batches that the stage has memory for."""
    return Batches(clips, run.recipe.data, recipe.batch_seconds, run.machine)


def _labels(run: Run, recipe: FitRecipe, fit: Fit, artefact: Artefact, train: Clips) -> dict[str, Tensor]:
    """The labels of clips by id: of those for training, and of the dev split, on which what learns them is measured."""
    return {
        name: labels
        for batch in run_through(run, recipe, joined([train, run.data.dev_clips(fit.needs)]))
        for name, labels in zip(batch.ids, fit.label(run.model, artefact, batch), strict=True)
    }


class Batches:
    """Clips in batches of like length; may be gone through again and again."""

    def __init__(self, clips: Clips, recipe: DataRecipe, batch_seconds: float, machine: Machine):
        self.clips, self.recipe, self.batch_seconds, self.machine = clips, recipe, batch_seconds, machine

    def __iter__(self) -> Iterator[Batch]:
        loader = Loader(self.clips, max_bad=self.recipe.max_bad, remembered=0)
        readers = self.machine.readers(self.recipe.workers)
        with closing(made_ahead(loader.read, self._groups(), readers, pinned=self.machine.pinned)) as batches:
            for batch in batches:
                loader.count(batch.broken)
                yield batch.to(self.machine.device)

    def _groups(self) -> Iterator[list[int]]:
        """The clips of each batch."""
        durations = self.clips.durations
        group: list[int] = []
        for place in np.argsort(durations, kind="stable").tolist():
            if group and durations[place] * (len(group) + 1) > self.batch_seconds:
                yield group
                group = []
            group.append(place)
        yield group


def write_artefact(folder: Path, artefact: Artefact, labels: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write the folder, whole or not at all; labels: of clips by id, if any."""
    with atomic_folder(folder, ABOUT) as temporary:
        write_tensors(temporary / TENSORS, {name: value.cpu().contiguous() for name, value in artefact.tensors.items()})
        if labels:
            write_tensors(temporary / LABELS, labels)
        files = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / ABOUT, about | {"figures": artefact.figures, "files": files})


def read_artefact(folder: Path) -> tuple[Artefact, dict[str, Tensor]]:
    """An artefact of a run and its labels, if any; every file is checked before it is used."""
    about = read_json(folder / ABOUT)
    for name, digest in about["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise IsoglossError(f"{folder / name} is missing or was changed; restore it, or train into another --out.")
    labels = read_tensors(folder / LABELS) if (folder / LABELS).exists() else {}
    return Artefact(read_tensors(folder / TENSORS), about["figures"]), labels


def _fitted(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the very same was fitted before."""
    if not (folder / ABOUT).exists():
        return False
    known = read_json(folder / ABOUT)
    return all(known.get(key) == value for key, value in about.items())
