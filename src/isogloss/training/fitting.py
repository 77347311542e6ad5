"""A stage that fits instead of training; what it finds is an artefact of the run.

    RUN/artefacts/NAME/artefact.json          what was fitted, to which data, figures, SHA-256 of the files
                       tensors.safetensors    centroids, statistics, …
                       labels.safetensors     of clips by id, where there are any
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isogloss.data.loading import Batch, Loader
from isogloss.errors import IsoglossError
from isogloss.files import atomic_folder, read_json, sha256, write_json
from isogloss.model.folder import read_tensors, write_tensors
from isogloss.objectives.fit import Artefact
from isogloss.training.hardware import Machine
from isogloss.training.journal import Journal
from isogloss.training.recipe import DataRecipe, FitRecipe
from isogloss.training.run import Run
from isogloss.training.streams import Stream

ABOUT, TENSORS, LABELS = "artefact.json", "tensors.safetensors", "labels.safetensors"


def fit_stage(run: Run, journal: Journal, recipe: FitRecipe, step: int) -> None:
    """Fit, or take what was fitted before the run was cut off; the model and later stages have it then.

    The first process fits, and the others wait for it: they take what it wrote.
    """
    folder = run.folder / "artefacts" / recipe.name
    about = {"stage": recipe.name, "fit": recipe.fit.plain(), "fingerprint": run.data.fingerprint}
    fit = recipe.fit.build()
    if run.machine.rank == 0 and not _fitted(folder, about):
        stream = run.data.stream(fit.needs, recipe.name)
        run.model.eval()
        with torch.no_grad():
            artefact = fit.fit(run.model, Clips(stream, run.recipe.data, recipe.batch_seconds, run.machine))
        write_artefact(folder, artefact, about)
        figures = "".join(f", {name} {value:g}" for name, value in artefact.figures.items())
        journal.say(f"{recipe.name}: fitted {recipe.fit.name} to {len(stream.cuts)} clips{figures}")
        journal.record({"event": "fit", "stage": recipe.name, "step": step} | artefact.figures)
    run.machine.wait()
    found = read_artefact(folder)
    fit.apply(run.model, found)
    if found.labels:
        run.labels[recipe.name] = found.labels


class Clips:
    """The clips of a stream in batches of like length; may be gone through again and again."""

    def __init__(self, stream: Stream, recipe: DataRecipe, batch_seconds: float, machine: Machine):
        self.stream, self.recipe, self.batch_seconds, self.machine = stream, recipe, batch_seconds, machine

    def __iter__(self) -> Iterator[Batch]:
        loader = Loader(self.stream.cuts, workers=self.recipe.workers, max_bad=self.recipe.max_bad)
        durations = np.array([cut.duration for cut in self.stream.cuts])
        group: list[int] = []
        for place in np.argsort(durations, kind="stable").tolist():
            if group and durations[place] * (len(group) + 1) > self.batch_seconds:
                yield loader.load(group).to(self.machine.device)
                group = []
            group.append(place)
        yield loader.load(group).to(self.machine.device)
        loader.close()


def write_artefact(folder: Path, artefact: Artefact, about: dict[str, Any]) -> None:
    """Write the folder, whole or not at all."""
    with atomic_folder(folder, ABOUT) as temporary:
        write_tensors(temporary / TENSORS, {name: value.cpu().contiguous() for name, value in artefact.tensors.items()})
        if artefact.labels:
            write_tensors(temporary / LABELS, {name: value.contiguous() for name, value in artefact.labels.items()})
        files = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / ABOUT, about | {"figures": artefact.figures, "files": files})


def read_artefact(folder: Path) -> Artefact:
    """An artefact of a run; every file is checked before it is used."""
    about = read_json(folder / ABOUT)
    for name, digest in about["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise IsoglossError(f"{folder / name} is missing or was changed; remove {folder} to fit it again.")
    labels = read_tensors(folder / LABELS) if (folder / LABELS).exists() else {}
    return Artefact(read_tensors(folder / TENSORS), labels, about["figures"])


def _fitted(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the very same was fitted before."""
    if not (folder / ABOUT).exists():
        return False
    known = read_json(folder / ABOUT)
    return all(known.get(key) == value for key, value in about.items())
