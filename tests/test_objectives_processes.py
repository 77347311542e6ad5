"""Several objectives in one stage: two processes are one, and what none of them reaches is refused by its name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.training import development
from isogloss.training.checkpoint import read_checkpoint
from isogloss.training.journal import read_log
from isogloss.training.launch import train_in_processes
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_models import small_recipe
from small_objectives import HEADS

CODES = {"codes": 32, "start_probability": 0.05, "mask_ms": 120}
TEXT = {"entry": 1, "convolutions": 0, "layers": 0, "refiner": 0, "upsampling": "none"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer dev clips: these tests are about steps."""
    monkeypatch.setattr(development, "CLIPS", 2)


@pytest.fixture
def recipe(letters: Path) -> dict[str, Any]:
    """Means over utterances and over masked frames, codes, slow copies, and terms that compare clips of a batch."""
    objectives: list[dict[str, Any]] = [
        {"name": "best_rq", **CODES},
        {"name": "slam", "speech": CODES},
        {"name": "masked_text"},
        {"name": "maestro", "mask": None, "aligner": 0.9},
        {"name": "speecht5_speech", "speech": CODES},
        {"name": "speecht5_text"},
        {"name": "sonar"},
    ]
    stage = {
        "name": "all",
        "steps": 2,
        "seconds": {"speech": 8, "paired": 8, "text": 4},
        "batch_seconds": 4,
        "objectives": objectives,
        "best": "last",
        "evaluate_every": 2,
    }
    return small_recipe(letters, [stage], text=TEXT, heads=HEADS)


def means(run: Path) -> list[dict[str, float]]:
    """What a run logged of its steps."""
    dropped = {"event", "stage", "step", "speed", "waited", "skipped", "time"}
    steps = [record for record in read_log(run) if record["event"] == "step"]
    return [{name: value for name, value in record.items() if name not in dropped} for record in steps]


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_are_one(recipe: dict[str, Any], sharding: str, tmp_path: Path) -> None:
    """The same terms, statistics and gradients of every step, and the same weights and slow copies after them."""
    train(Recipe.parse(recipe, "test"), tmp_path / "one", console=Console(quiet=True))
    train_in_processes(Recipe.parse(recipe | {"sharding": sharding}, "test"), tmp_path / "two", 2)
    one, two = means(tmp_path / "one"), means(tmp_path / "two")
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        assert {"best_rq/codes", "slam/same", "speecht5_speech/diversity", "sonar/contrast", "norm"} <= alone.keys()
        assert shared == pytest.approx(alone, rel=1e-3, abs=1e-4)
    for file in ("model", "objectives"):
        mine, theirs = (read_checkpoint(tmp_path / name, 2).tensors(file) for name in ("one", "two"))
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert any(name.startswith("maestro/ema.copy.") for name in mine)


def test_a_part_that_no_objective_reaches_is_refused_by_its_name(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Before the first step; frozen, it is left alone."""
    stage = recipe["stages"][0] | {"seconds": {"speech": 8}, "objectives": recipe["stages"][0]["objectives"][:1]}
    said = r'No objective of the stage "all" reaches \d+ of the parameters .*freeze: \[heads, text\]'
    with pytest.raises(IsoglossError, match=said):
        train(Recipe.parse(recipe | {"stages": [stage]}, "test"), tmp_path / "a", console=Console(quiet=True))
    assert means(tmp_path / "a") == []
    frozen = stage | {"freeze": ["heads", "text"], "steps": 1}
    train(Recipe.parse(recipe | {"stages": [frozen]}, "test"), tmp_path / "b", console=Console(quiet=True))
    assert len(means(tmp_path / "b")) == 1
