"""Models that experiments train: made once, each in a folder of its own."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from isogloss.config import load_yaml, override
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train


def add_options(arguments: ArgumentParser) -> None:
    """What every script that trains can be told."""
    arguments.add_argument("--runs", type=Path, required=True, help="where the models are, or will be")
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--steps", type=int, help="of every stage, instead of the recipe's: for a trial")


def some_stages(recipe: Path, stages: slice, changes: list[str]) -> Recipe:
    """Some stages of a recipe with changes, for which the first of these is stage 0."""
    values = load_yaml(recipe)
    return Recipe.parse(override(values | {"stages": values["stages"][stages]}, changes), recipe.name)


def trained(recipe: Recipe, run: Path, options: Namespace, minutes: float | None = None) -> Path:
    """The model folder of a run, which is made if it is not there. minutes: into which training is to fit."""
    if not (run / "model").is_dir():
        if options.steps:
            stages = tuple(stage.model_copy(update={"steps": options.steps}) for stage in recipe.stages)
            recipe = recipe.model_copy(update={"stages": stages})
        if options.processes > 1:
            train_in_processes(recipe, run, options.processes, minutes=minutes)
        else:
            train(recipe, run, minutes=minutes)
    return run / "model"
