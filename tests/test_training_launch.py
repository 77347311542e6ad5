"""Processes that share one machine: the same run as one process, and one sentence when it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.training.budget import Budget
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes, useful_processes
from isogloss.training.recipe import Recipe, load_recipe
from isogloss.training.run import RECIPE
from isogloss.training.stage_run import StageRun
from isogloss.training.trainer import train


@pytest.fixture(scope="module")
def recipe(letters: Path) -> Recipe:
    """Twenty steps on spoken letters; a step is two batches."""
    plain: dict[str, Any] = {
        "name": "test",
        "precision": "fp32",
        "device": "cpu",
        "model": {"encoder": "test", "tokenizer": {"kind": "characters", "unknown": True}},
        "data": {"folders": [str(letters)], "shortest": 0.1},
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


def test_processes_agree_where_a_parameter_learns_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """Text alone teaches no durations, and a guard shuts out all that only its objective teaches."""
    plain = recipe.plain()
    plain["model"]["text"] = {"entry": 1, "convolutions": 0, "layers": 0, "duration_layers": 1, "refiner": 1}
    objectives = [{"name": "recognition"}, {"name": "aligned_mlm", "mask": None, "guard": {"cer": 1e-6}}]
    stage = plain["stages"][0] | {"steps": 3, "seconds": {"paired": 16, "text": 16}, "objectives": objectives}
    stage["freeze"] = ["text.duration"]
    free = stage | {"name": "free", "objectives": [objectives[0], objectives[1] | {"guard": {}}]}
    joint = Recipe.parse(plain | {"stages": [stage, free]}, "test")
    train(joint, tmp_path / "one", console=Console(quiet=True))
    train_in_processes(joint, tmp_path / "two", 2)
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-3)


def test_a_failure_in_a_process_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    data = recipe.data.model_copy(update={"folders": (tmp_path / "nowhere",)})
    with pytest.raises(IsoglossError, match="nowhere"):
        train_in_processes(recipe.model_copy(update={"data": data}), tmp_path / "run", 2)


def test_no_process_outlives_a_killed_command(recipe: Recipe, tmp_path: Path) -> None:
    plain = recipe.plain()
    plain["stages"][0]["steps"] = 100_000
    (tmp_path / "recipe.yaml").write_text(json.dumps(plain))
    command = [sys.executable, "-m", "isogloss", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    parent = subprocess.Popen([*command, "--processes", "2"], stderr=subprocess.DEVNULL)
    _until(lambda: (tmp_path / "run/log.jsonl").exists() and len(read_log(tmp_path / "run")) > 1)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _until(lambda: not any(_runs(child) for child in children))


def _runs(process: str) -> bool:
    """Whether a process is there and not only waits for its parent to ask how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(happened: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_minutes_scale_every_stage_alike(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 + 40 steps of 10 ms are 0.6 s; 0.45 s are three quarters of them."""
    monkeypatch.setattr(StageRun, "measure", lambda run: 0.01)
    twice = recipe.model_copy(update={"stages": (recipe.stages[0], recipe.stages[0].model_copy(update={"steps": 40}))})
    monkeypatch.setattr(Budget, "share", lambda budget, stages, ended: 1.0 if ended else 0.75)
    train(twice, tmp_path, minutes=0.45 / 60, console=Console(quiet=True))
    assert [stage.steps for stage in load_recipe(tmp_path / RECIPE).stages] == [15, 30]
    assert len(_losses(tmp_path)) == 45


def test_stages_that_train_different_parts_are_fitted_to_a_time(recipe: Recipe, tmp_path: Path) -> None:
    plain = recipe.plain()
    plain["model"]["text"] = {"entry": 1, "layers": 1, "refiner": 1, "duration_layers": 1}
    write = plain["stages"][0] | {"freeze": ["text"]}
    match = write | {"name": "match", "objectives": [{"name": "most"}], "freeze": []}
    parsed = Recipe.parse(plain | {"stages": [write, match, write]}, "test")
    assert (train_in_processes(parsed, tmp_path / "run", 2, minutes=0.01) / "model.safetensors").exists()


def test_a_run_fitted_to_a_time_goes_on_by_the_same_command(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are those of the checkpoint, also of stages that were shortened under way."""
    monkeypatch.setattr(StageRun, "measure", lambda run: 0.01)
    monkeypatch.setattr(Budget, "share", lambda budget, stages, ended: 0.5)
    twice = recipe.model_copy(update={"stages": (recipe.stages[0], recipe.stages[0].model_copy(update={"steps": 60}))})
    whole = train(twice, tmp_path / "whole", minutes=1, console=Console(quiet=True))
    assert [stage.steps for stage in load_recipe(tmp_path / "whole" / RECIPE).stages] == [10, 15]

    class Cut(Exception):
        pass

    def cut(run: StageRun) -> None:
        if run.number == 1:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(StageRun, "_step", _before(StageRun._step, cut))
        with pytest.raises(Cut):
            train(twice, tmp_path / "cut", minutes=1, console=Console(quiet=True))
    resumed = train(twice, tmp_path / "cut", minutes=1, resume=True, console=Console(quiet=True))
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    with pytest.raises(IsoglossError, match=r"stages.0.steps, stages.1.steps"):
        train(twice, tmp_path / "cut", resume=True, console=Console(quiet=True))


def _before(step: Callable[[StageRun], None], first: Callable[[StageRun], None]) -> Callable[[StageRun], None]:
    def both(run: StageRun) -> None:
        first(run)
        step(run)

    return both


def test_a_step_is_shared_by_no_more_processes_than_it_has_batches(recipe: Recipe) -> None:
    assert 1 <= useful_processes(recipe) <= 2
    whole = recipe.stages[0].model_copy(update={"batch_seconds": 16.0})
    assert useful_processes(recipe.model_copy(update={"stages": (whole,)})) == 1
