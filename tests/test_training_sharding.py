"""Weights in parts: two processes that share a model learn what one does with all of it, and go on as either."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.model.folder import load_model
from isogloss.training.checkpoint import read_checkpoint
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_models import small_recipe

CODES = {"codes": 32, "start_probability": 0.05, "mask_ms": 120}
TEXT = {"entry": 1, "convolutions": 0, "layers": 1, "refiner": 0, "duration_layers": 1, "dropout": 0.1}


@pytest.fixture
def recipe(letters: Path) -> dict[str, Any]:
    """Frozen parts, a fit, an aligner that follows, an average, a guard, and gradients that are always clipped."""
    pretrain = {
        "name": "pretrain",
        "steps": 2,
        "seconds": {"speech": 8},
        "batch_seconds": 4,
        "objectives": [{"name": "best_rq", **CODES}],
        "freeze": ["heads", "text"],
        "optimizer": {"clip": 0.01},
        "best": "last",
    }
    clusters = {"name": "clusters", "fit": {"name": "kmeans", "clusters": 4, "layer": 1, "starts": 1}}
    join = pretrain | {
        "name": "join",
        "steps": 4,
        "seconds": {"speech": 8, "paired": 8, "text": 4},
        "objectives": [
            {"name": "best_rq", **CODES},
            {"name": "maestro", "aligner": 0.9, "augment": "conformer"},
            {"name": "aligned_mlm", "guard": {"cer": 1e-6}},
        ],
        "freeze": [],
        "optimizer": {"clip": 0.01, "ema": 0.5},
        "best": "loss",
        "evaluate_every": 2,
        "save_every": 1,
    }
    made = small_recipe(letters, [pretrain, clusters, join], text=TEXT, heads={"ctc": {}, "language": {}})
    return made | {"keep": 10}


def run(recipe: dict[str, Any], folder: Path, sharded: bool, resume: bool = False) -> None:
    if sharded:
        train_in_processes(Recipe.parse(recipe | {"sharding": "full"}, "test"), folder, 2, resume=resume)
    else:
        train(Recipe.parse(recipe, "test"), folder, resume=resume, console=Console(quiet=True))


def figures(folder: Path) -> list[dict[str, float]]:
    """The numbers of a log but those of the clock; where weights are parted no gradients of single objectives are told.
    """
    dropped = {"event", "stage", "time", "speed", "waited"}
    told = [record for record in read_log(folder) if record["event"] != "gradients"]
    return [{name: value for name, value in record.items() if name not in dropped} for record in told]


def assert_alike(folder: Path, other: Path) -> None:
    """The same log, looks at the dev split and all, and the same model in the end, but for rounding."""
    for alone, shared in zip(figures(folder), figures(other), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3, abs=1e-4)
    mine, theirs = (load_model(place / "model").state_dict() for place in (folder, other))
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def cut(folder: Path, step: int) -> None:
    """Leave no checkpoint after a step."""
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(folder / "model")


def test_parts_learn_what_a_whole_does_and_each_goes_on_as_the_other(recipe: dict[str, Any], tmp_path: Path) -> None:
    run(recipe, tmp_path / "whole", sharded=False)
    run(recipe, tmp_path / "parts", sharded=True)
    assert_alike(tmp_path / "whole", tmp_path / "parts")
    for file in ("model", "objectives", "optimizer", "average"):
        mine, theirs = (read_checkpoint(tmp_path / name, 4).tensors(file) for name in ("whole", "parts"))
        assert {k: (v.shape, v.dtype) for k, v in mine.items()} == {k: (v.shape, v.dtype) for k, v in theirs.items()}
    shutil.copytree(tmp_path / "whole", tmp_path / "into parts")
    for folder, step, sharded in (("parts", 3, False), ("into parts", 4, True)):
        cut(tmp_path / folder, step)
        run(recipe, tmp_path / folder, sharded, resume=True)
        assert_alike(tmp_path / "whole", tmp_path / folder)


def test_a_compiled_encoder_is_not_parted(recipe: dict[str, Any]) -> None:
    with pytest.raises(IsoglossError, match="an encoder that is sharded cannot be compiled"):
        Recipe.parse(recipe | {"sharding": "full", "compile": True}, "test")
