"""A recipe -> a trained model folder: one stage after another, then the export. It knows no method."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.model.folder import load_pretraining, save_model
from isogloss.training import checkpoint as checkpoints
from isogloss.training.budget import Budget
from isogloss.training.build import build_model
from isogloss.training.card import describe
from isogloss.training.data import Data
from isogloss.training.development import Development
from isogloss.training.fitting import fit_stage
from isogloss.training.hardware import (
    Machine,
    choose_device,
    choose_precision,
    restarted,
    start_group,
    sum_over_group,
    wait_for_group,
)
from isogloss.training.journal import Journal
from isogloss.training.lock import alone_in
from isogloss.training.recipe import FitRecipe, Recipe
from isogloss.training.run import Run
from isogloss.training.stage import Stage, only_trying
from isogloss.training.stage_run import StageRun

TRIAL = ".trial"
"""Folder in a run's, for what is fitted while the stages are measured."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    console: Console | None = None,
) -> Path:
    """Train a recipe into the folder of a run; returns the model folder, `model` in it.

    With `resume`, or started anew by torchrun after a process failed, goes on from the newest checkpoint exactly as if
    the run had not been cut off. With `minutes`, a new run takes as many steps as fit into that time on this machine,
    each stage its share, and a resumed one as many as it was going to; `recipe.yaml` in it says how many they are.
    On SIGTERM it saves itself at the end of the step and raises `Interrupted`.
    """
    console = console or Console(stderr=True)
    rank, _ = start_group()
    choose_device(recipe.device)  # before processes meet
    with alone_in(folder) if rank == 0 else nullcontext():
        wait_for_group()  # what is resumed lies still
        return _train(recipe, folder, resume or restarted(), minutes, console)


def _train(recipe: Recipe, folder: Path, resume: bool, minutes: float | None, console: Console) -> Path:
    run = begin(recipe, folder, resume, fitted=minutes is not None)
    _try_stages(run)
    if minutes is not None and run.found is None:
        fit_into(run, minutes, console)
    run.write_recipe()
    journal = Journal(
        folder,
        resume_at=run.found.state["step"] if run.found else None,
        speak=run.machine.rank == 0,
        tensorboard=recipe.tensorboard,
        console=console,
    )
    with journal:
        journal.say(run.data.summary)
        if run.recipe.adapted:
            journal.say(f"For a GPU as large as this, {run.recipe.name} has {', '.join(run.recipe.adapted)}.")
        if restarted() and run.found is not None:  # which all processes must ask
            journal.say(f"A process failed and all were started anew: going on from step {run.found.state['step']}.")
        _all_stages(run, journal)
    if run.machine.rank == 0:
        _export(run)
    wait_for_group()
    return folder / "model"


def begin(recipe: Recipe, folder: Path, resume: bool, fitted: bool = False) -> Run:
    """The context of a run, new or to be resumed; everything that can be wrong with data and recipe is said here."""
    rank, world = start_group()
    found = checkpoints.to_resume(folder, recipe.plain(), resume, fitted)
    if found is not None:
        recipe = checkpoints.resumed(recipe, Recipe.parse(found.state["recipe"], str(folder)))
    device = choose_device(recipe.device)
    # Decided once a run: what `auto` measured is kept over a resume.
    precision = choose_precision(found.state["precision"] if found else recipe.precision, device)
    machine = Machine(device, precision, rank, world)
    data = Data(recipe)
    if found is not None and found.state["fingerprint"] != data.fingerprint:
        raise IsoglossError(f"The data changed since {folder} was trained; restore them, or choose another --out.")
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, data.train, data.paired, data.texts)
    if recipe.compile:
        model.encoder.stack.compile(dynamic=True)
    carried = load_pretraining(recipe.model.start_from) if recipe.model.start_from else {}
    labels: dict[str, dict[str, torch.Tensor]] = {}
    development = Development(data, machine, labels)
    return Run(folder, recipe, machine, data, model, development, found, carried=carried, labels=labels)


def fit_into(run: Run, minutes: float, console: Console) -> None:
    """Scale the steps of all stages so that together they take about `minutes` on this machine.

    What stages fit is fitted for this too, to a model that knows nothing yet: it takes its time, and without it those
    after it cannot be measured.
    """
    journal = Journal(run.folder, resume_at=None, speak=False, tensorboard=False, console=console)
    trial = replace(run, folder=run.folder / TRIAL, labels={})
    if run.machine.rank == 0:
        shutil.rmtree(trial.folder, ignore_errors=True)  # of a run that was killed
    costs: list[float] = []
    fits = 0.0
    try:
        with only_trying(run.model):
            # One after the other: a stage decides which parameters want a gradient.
            for number, recipe in enumerate(run.recipe.stages):
                if isinstance(recipe, FitRecipe):
                    began = time.monotonic()
                    fit_stage(trial, journal, number, 0)
                    fits += time.monotonic() - began
                else:
                    costs.append(StageRun(trial, journal, number, 0).measure())
        seconds = torch.tensor([*costs, fits], dtype=torch.float64, device=run.machine.device)
        *costs, fits = (sum_over_group(seconds) / run.machine.world).tolist()
    finally:
        if run.machine.rank == 0:
            shutil.rmtree(trial.folder, ignore_errors=True)
    run.budget = Budget(minutes - fits / 60, costs)
    run.refit(ended=0)


def _try_stages(run: Run) -> None:
    """What a later stage lacks is said now, and not after hours of the stages before it."""
    fitted: set[str] = set()
    for recipe in run.recipe.stages:
        if isinstance(recipe, FitRecipe):
            if recipe.name in fitted:
                raise IsoglossError(f'Two stages are named "{recipe.name}" and fit something; give one another name.')
            run.data.stream(recipe.fit.build(run.model.spec).needs, recipe.name)
            fitted.add(recipe.name)
            continue
        for needs in Stage(recipe, run.model).needs().values():
            run.data.stream(needs, recipe.name)
            if missing := sorted(needs.labels - fitted):
                raise IsoglossError(
                    f'The stage "{recipe.name}" learns from the labels {", ".join(missing)}, which no stage before it '
                    "fits; add a stage of that name with fit: {name: kmeans}."
                )


def _all_stages(run: Run, journal: Journal) -> None:
    start = 0
    for number, recipe in enumerate(run.recipe.stages):
        if isinstance(recipe, FitRecipe):
            with run.budget.paused() if run.budget else nullcontext():
                fit_stage(run, journal, number, start)
        elif run.found is None or run.found.state["stage"] <= number:
            StageRun(run, journal, number, start).train()
            run.found = None
        start += run.recipe.stages[number].steps


def _export(run: Run) -> None:
    """`RUN/model`: weights, card, and what pre-training learned beside the model."""
    recipe, data = run.recipe, run.data
    card = describe(recipe, data.cards, data.train, data.paired, data.texts)
    frozen = all("encoder.stack" in stage.freeze for stage in recipe.training)
    base = recipe.model.start_from if recipe.model.adapters and frozen else None
    save_model(run.model, run.folder / "model", card, recipe.plain(), base, run.carried)
