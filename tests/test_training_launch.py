"""Processes that share one machine: the same run as one process, and one sentence when it fails."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isogloss.data.prepare import prepare
from isogloss.errors import IsoglossError
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes, useful_processes
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.trainer import RECIPE, StageRun, train


@pytest.fixture(scope="module")
def recipe(debian_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Twenty steps on spoken letters; a step is two batches."""
    folder = tmp_path_factory.mktemp("data") / "letters"
    prepare("klettres", folder, languages=["es", "it"], cache=debian_cache)
    plain: dict[str, Any] = {
        "name": "test",
        "precision": "fp32",
        "device": "cpu",
        "model": {"encoder": "test", "tokenizer": {"kind": "characters", "unknown": True}},
        "data": {"folders": [str(folder)], "shortest": 0.1},
        "stages": [
            {
                "name": "finetune",
                "steps": 20,
                "seconds": {"paired": 16},
                "batch_seconds": 8,
                "objectives": [{"name": "recognition"}],
            }
        ],
    }
    return Recipe.parse(plain, "test")


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run) if record["event"] == "step"]


def test_two_processes_learn_what_one_does(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "one", console=Console(quiet=True))
    model = train_in_processes(recipe, tmp_path / "two", 2)
    assert (model / "model.safetensors").exists()
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-3)


def test_a_failure_in_a_process_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    data = recipe.data.model_copy(update={"folders": (tmp_path / "nowhere",)})
    with pytest.raises(IsoglossError, match="nowhere"):
        train_in_processes(recipe.model_copy(update={"data": data}), tmp_path / "run", 2)


def test_minutes_scale_every_stage_alike(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 + 40 steps of 10 ms are 0.6 s; 0.45 s are three quarters of them."""
    monkeypatch.setattr(StageRun, "measure", lambda run: 0.01)
    twice = recipe.model_copy(update={"stages": (recipe.stages[0], recipe.stages[0].model_copy(update={"steps": 40}))})
    train(twice, tmp_path, minutes=0.45 / 60, console=Console(quiet=True))
    assert [stage.steps for stage in load_recipe(tmp_path / RECIPE).stages] == [15, 30]
    assert len(_losses(tmp_path)) == 45


def test_a_step_is_shared_by_no_more_processes_than_it_has_batches(recipe: Recipe) -> None:
    assert 1 <= useful_processes(recipe) <= 2
    whole = recipe.stages[0].model_copy(update={"batch_seconds": 16.0})
    assert useful_processes(recipe.model_copy(update={"stages": (whole,)})) == 1
