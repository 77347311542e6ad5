"""The loop on real clips: exact resume after SIGKILL, one process = two, refusal of what cannot work."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console

from isogloss.errors import IsoglossError
from isogloss.training.recipe import OptimizerRecipe, Recipe, load_recipe
from isogloss.training.schedule import learning_rate
from isogloss.training.trainer import train
from launched import finish, kill_after, start, steps, weights
from small_models import small_recipe


@pytest.fixture
def recipe(letters: Path) -> dict[str, Any]:
    """Two short stages with everything on: masks, dropout, SpecAugment, speeds, averaging, accumulation."""
    stages = [
        {
            "name": "pretrain",
            "steps": 4,
            "seconds": {"speech": 16},
            "batch_seconds": 8,
            "objectives": [{"name": "best_rq", "codes": 64, "start_probability": 0.05}],
            "freeze": ["heads"],
            "save_every": 2,
            "evaluate_every": 3,
        },
        {
            "name": "finetune",
            "steps": 5,
            "seconds": {"paired": 16},
            "batch_seconds": 8,
            "objectives": [{"name": "recognition", "augment": "conformer"}],
            "optimizer": {"ema": 0.9},
            "save_every": 2,
            "evaluate_every": 3,
        },
    ]
    recipe = small_recipe(letters, stages)
    recipe["data"]["speeds"] = [0.9, 1.0, 1.1]
    return recipe


@pytest.fixture
def joined(recipe: dict[str, Any]) -> dict[str, Any]:
    """The same, and a third stage of speech, pairs and text in one step, with an aligner that follows."""
    recipe["model"]["text"] = {
        "entry": 1, "convolutions": 1, "layers": 1, "duration_layers": 1, "refiner": 1, "dropout": 0.1,
    }  # fmt: skip
    join = {
        "name": "join",
        "steps": 4,
        "seconds": {"speech": 8, "paired": 16, "text": 4},
        "batch_seconds": 8,
        "temperatures": {"text": 3.0},
        "objectives": [
            {"name": "best_rq", "codes": 64, "start_probability": 0.05},
            {"name": "maestro", "aligner": 0.9, "augment": "conformer"},
            {"name": "aligned_mlm", "ramp": 3},
        ],
        "save_every": 2,
        "evaluate_every": 3,
    }
    for stage in recipe["stages"]:
        stage["freeze"] = [*stage.get("freeze", []), "text"]
    return recipe | {"stages": [*recipe["stages"], join]}


def run_here(recipe: dict[str, Any], run: Path, resume: bool = False) -> Path:
    return train(Recipe.parse(recipe, "test"), run, resume=resume, console=Console(quiet=True))


def test_resume_after_sigkill_is_bit_identical(joined: dict[str, Any], tmp_path: Path) -> None:
    """Killed in the first stage, at its end, in the second and in the third: same log, same parameters."""
    recipe = joined
    whole = tmp_path / "whole"
    finish(start(recipe, whole))
    cut = tmp_path / "cut"
    for options, step in (((), 1), (("--resume",), 4), (("--resume",), 7), (("--resume",), 12)):
        kill_after(start(recipe, cut, *options), cut, step)
    finish(start(recipe, cut, "--resume"))
    assert steps(cut) == steps(whole)
    expected, found = weights(whole / "model"), weights(cut / "model")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_two_processes_take_the_same_steps_as_one(joined: dict[str, Any], tmp_path: Path) -> None:
    recipe = joined
    finish(start(recipe, tmp_path / "one"))
    finish(start(recipe, tmp_path / "two", processes=2))
    for alone, shared in zip(steps(tmp_path / "one"), steps(tmp_path / "two"), strict=True):
        assert alone["step"] == shared["step"] and alone["event"] == shared["event"]
        if alone["event"] != "gradients":
            assert shared["loss"] == pytest.approx(alone["loss"], rel=2e-4)
        if alone["event"] == "step":
            assert shared["seconds"] == pytest.approx(alone["seconds"])


def test_same_seed_same_losses_other_seed_others(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"] = recipe["stages"][:1]
    for name in ("a", "b"):
        run_here(recipe, tmp_path / name)
    run_here(recipe | {"seed": 1}, tmp_path / "c")
    assert steps(tmp_path / "a") == steps(tmp_path / "b")
    assert steps(tmp_path / "a") != steps(tmp_path / "c")


def test_frozen_parameters_and_the_quantizer_stay(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"][1]["freeze"] = ["encoder.", "features."]
    run_here(recipe, tmp_path / "run")
    before = safetensors.torch.load_file(tmp_path / "run/checkpoints/step-00000004/model.safetensors") if (
        tmp_path / "run/checkpoints/step-00000004"
    ).exists() else None
    after = weights(tmp_path / "run" / "model")
    recipe["stages"] = recipe["stages"][:1]
    run_here(recipe, tmp_path / "first")
    first = weights(tmp_path / "first" / "model")
    for name in after:
        if name.startswith("encoder."):
            assert torch.equal(after[name], first[name]), name
            assert before is None or name in before


def test_a_checkpoint_holds_no_pickle_and_the_frozen_quantizer(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"] = recipe["stages"][:1]
    run_here(recipe, tmp_path / "run")
    folder = max((tmp_path / "run" / "checkpoints").iterdir())
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".json"}
    own = safetensors.torch.load_file(folder / "objectives.safetensors")
    assert {"best_rq/masked.quantizer.projection", "best_rq/masked.quantizer.codebooks"} <= own.keys()


def test_a_damaged_checkpoint_is_passed_over(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_here(recipe, tmp_path / "whole")
    run_here(recipe, tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    with (newest / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    run_here(recipe, tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")


def refuse(recipe: dict[str, Any], run: Path, resume: bool = False) -> str:
    with pytest.raises(IsoglossError) as caught:
        run_here(recipe, run, resume)
    return str(caught.value)


def test_resume_refuses_another_recipe_and_a_new_run_refuses_an_old_folder(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["stages"] = recipe["stages"][:1]
    run_here(recipe, tmp_path / "run")
    assert "--resume" in refuse(recipe, tmp_path / "run")
    recipe["stages"][0]["optimizer"] = {"peak": 0.5}
    assert "stages.0.optimizer.peak" in refuse(recipe, tmp_path / "run", resume=True)


def test_impossible_recipes_are_refused_in_one_sentence(recipe: dict[str, Any], tmp_path: Path) -> None:
    typo = json.loads(json.dumps(recipe))
    typo["stages"][0]["stepps"] = 3
    assert 'Did you mean "steps"?' in refuse(typo, tmp_path / "a")
    unknown = json.loads(json.dumps(recipe))
    unknown["data"]["languages"] = ["fra"]
    assert 'the data hold no "fr"' in refuse(unknown, tmp_path / "b")
    frozen = json.loads(json.dumps(recipe))
    frozen["stages"][0]["freeze"] = ["encoder", "best_rq", "heads"]
    assert "freezes every parameter" in refuse(frozen, tmp_path / "c")
    tuned = json.loads(json.dumps(recipe))
    tuned["stages"][0]["optimizers"] = {"encodr": {"peak": 1e-4}}
    assert 'has an optimizer of "encodr", which it does not have. Did you mean' in refuse(tuned, tmp_path / "o")
    missing = json.loads(json.dumps(recipe))
    missing["data"]["folders"] = [str(tmp_path / "nowhere")]
    assert "nowhere" in refuse(missing, tmp_path / "d")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.folders=d/ok", '"data.folders" is \'d/ok\': give a list, as in [a, b].'),
        ("stages.2.objectives.0.both_sides=maybe", "objectives.0.both_sides\" is 'maybe': give true or false."),
        ("stages.2.objectives=[{name: mots}]", '"stages.2.objectives.0" has the name "mots". Did you mean "most"?'),
        ("stages.1=settle", '"stages.1'),
        ("stages.2.temperatures={txt: 3}", 'temperatures: "txt" is no stream of the stage. Did you mean "text"?'),
        ("stages.1.highest=true", "highest: name the figure whose highest value is best"),
        ("stages.2.objectives.0.sides=true", 'unknown key "stages.2.objectives.0.sides"'),
    ],
)
def test_a_mistake_in_a_recipe_is_named_as_it_was_typed(override: str, said: str) -> None:
    with pytest.raises(IsoglossError) as caught:
        load_recipe("most-tiny", ["data.folders=[x]", override])
    assert said in str(caught.value)


def test_a_corpus_that_is_weighed_must_be_there(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["data"]["weights"] = {"kletres": 2}
    with pytest.raises(IsoglossError, match=r'no corpus is named "kletres"\. Did you mean "klettres"\?'):
        run_here(recipe, tmp_path / "run")


def test_a_diverging_run_stops_and_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"] = recipe["stages"][1:]
    recipe["stages"][0]["steps"] = 40
    recipe["stages"][0]["optimizer"] = {"peak": 1e30, "clip": 1e30, "warmup": 0.0}
    message = refuse(recipe, tmp_path / "run")
    assert "not finite" in message and "learning rate" in message


def test_unnormalised_features_stop_by_codebook_collapse(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["stages"] = recipe["stages"][:1]
    recipe["stages"][0]["steps"] = 60
    recipe["stages"][0]["seconds"] = {"speech": 6}
    recipe["model"]["features"] = {"kind": "log_mel", "normalisation": "none"}
    assert "Codebook collapse" in refuse(recipe, tmp_path / "run")


@pytest.mark.parametrize("schedule", ["cosine", "linear", "inverse_sqrt", "constant"])
def test_schedules_climb_to_the_peak_and_never_below_the_floor(schedule: Any) -> None:
    recipe = OptimizerRecipe(peak=1.0, warmup=0.25, schedule=schedule, floor=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25) and max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[:25] == sorted(rates[:25]) and rates[25:] == sorted(rates[25:], reverse=True)
    assert min(rates[25:]) >= 0.1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Fewer dev clips: these tests are about the loop."""
    from isogloss.training import development

    monkeypatch.setattr(development, "CLIPS", 4)
    return development.Development
