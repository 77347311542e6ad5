"""finetune: what it chooses for which model and how much data, and what its training leaves alone."""

import io
from pathlib import Path

import pytest
from rich.console import Console

import isogloss
from isogloss.adaptation import finetune
from isogloss.adaptation.finetune import plan
from isogloss.errors import IsoglossError
from isogloss.model.folder import WEIGHTS, load_model, quantise_model, read_tensors, save_model
from isogloss.model.model import Model
from isogloss.training.recipe import Recipe
from isogloss.training.trainer import train
from small_models import build


@pytest.fixture(scope="module")
def speech_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heard") / "model"
    save_model(build(languages=(), recognises=False), folder, "card")
    return folder


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read") / "model"
    save_model(build(conditioning=(1,)), folder, "card")
    return folder


def quick(recipe: Recipe, steps: int = 3) -> Recipe:
    """A few steps of clips as short as letters."""
    data = recipe.data.model_copy(update={"shortest": 0.1})
    stages = tuple(stage.model_copy(update={"steps": steps, "evaluate_every": steps}) for stage in recipe.stages)
    return recipe.model_copy(update={"data": data, "stages": stages, "precision": "fp32", "device": "cpu"})


def trained(recipe: Recipe, run: Path) -> Path:
    return train(quick(recipe), run, console=Console(file=io.StringIO()))


def test_a_model_that_only_heard_speech_gets_a_head_first(letters, speech_alone):
    chosen = plan(speech_alone, [letters])
    head, *others = chosen.recipe.stages
    assert "encoder.stack" in head.freeze and not any(stage.freeze for stage in others)
    assert chosen.recipe.model.tokenizer is not None and chosen.recipe.model.adapters is None
    assert "pre-trained on speech alone" in " ".join(chosen.reasons) and "in es, it" in chosen.reasons[0]
    still = plan(speech_alone, [letters], way="adapters").recipe
    assert still.model.adapters is not None and all("encoder.stack" in stage.freeze for stage in still.stages)


@pytest.mark.parametrize("way", ["adapters", "whole"])
def test_a_model_without_a_head_of_the_language_is_adapted(way, letters, tmp_path):
    model = build()
    config = model.config.model_copy(update={"heads": {"ctc": model.config.heads["ctc"]}, "languages": ()})
    save_model(Model(config, model.tokenizer), tmp_path / "model", "card")
    folder = trained(plan(tmp_path / "model", [letters], way=way).recipe, tmp_path / "run")
    assert set(load_model(folder).config.heads) == {"ctc"}


def test_little_data_teach_adapters_and_more_everything(letters, recogniser, monkeypatch):
    little = plan(recogniser, [letters])
    assert little.recipe.model.adapters is not None and "only adapters and heads" in " ".join(little.reasons)
    monkeypatch.setattr(finetune, "LITTLE_HOURS", 0.001)
    more = plan(recogniser, [letters])
    assert more.recipe.model.adapters is None and more.recipe.stages[0].optimizers["encoder"].peak == 3e-4
    assert plan(recogniser, [letters], way="adapters").recipe.model.adapters is not None
    assert "did not know: f " in " ".join(more.reasons)


def test_nothing_transcribed_is_told(letters, recogniser):
    with pytest.raises(IsoglossError, match='hold no "ro"'):
        plan(recogniser, [letters], languages=("ro",))


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_adapters_leave_the_base_bit_for_bit_and_make_a_small_folder(letters, recogniser, tmp_path, weights):
    if weights == "int8":
        quantise_model(recogniser, tmp_path / "small")
        recogniser = tmp_path / "small"
    before = load_model(recogniser).trainable().state_dict()
    folder = trained(plan(recogniser, [letters]).recipe, tmp_path / "run")
    model = load_model(folder)
    after = model.state_dict()
    heads = ("heads.ctc.", "encoder.adapters.")
    assert all(after[name].equal(tensor) for name, tensor in before.items() if not name.startswith(heads))
    assert after["encoder.adapters.up"].abs().sum() > 0
    assert all(name.startswith(heads) for name in read_tensors(folder / WEIGHTS))
    assert list(model.encoder.adapters.groups) == ["es", "it"]
    # New letters stand behind the old ones, so that the old model's languages are written as before.
    old = load_model(recogniser).tokenizer.symbols
    back = after["heads.ctc.conditioning.back.weight"]
    assert back.shape[1] == model.tokenizer.size > before["heads.ctc.output.bias"].shape[0]
    assert model.tokenizer.symbols[: len(old)] == old and "z" in model.tokenizer.symbols
    reader = isogloss.load(recogniser, adapters=[folder])
    assert set(reader.engine.adapted[0].config.alphabets) == {"ro", "ru", "es", "it"}


def test_the_whole_learns_and_the_encoder_at_its_own_rate(letters, recogniser, tmp_path):
    recipe = plan(recogniser, [letters], way="whole").recipe
    stage = recipe.stages[0].model_copy(update={"optimizers": {"encoder": recipe.stages[0].optimizers["encoder"]}})
    folder = trained(recipe.model_copy(update={"stages": (stage,)}), tmp_path / "run")
    before, after = load_model(recogniser).state_dict(), load_model(folder).state_dict()
    moved = {name: (after[name] - tensor).abs().max() for name, tensor in before.items() if name.startswith("encoder")}
    assert all(change > 0 for name, change in moved.items() if name.endswith("expand.weight"))
    # Adam moves a weight by about its rate a step: 3 steps of at most 3e-4 here.
    assert max(moved.values()) < 3 * 3e-4 * 1.5


def test_a_frozen_front_end_keeps_its_statistics(letters, tmp_path):
    """They are no parameters: freezing must stop them too, also in the check before the first step."""
    recipe = {
        "name": "heard",
        "precision": "fp32",
        "device": "cpu",
        "model": {
            "encoder": "test",
            "features": {"kind": "log_mel", "normalisation": "running"},
            "tokenizer": {"kind": "characters"},
        },
        "data": {"folders": [str(letters)], "shortest": 0.1},
        "stages": [
            {"name": "read", "steps": 2, "seconds": {"paired": 8}, "objectives": [{"name": "recognition"}]},
        ],
    }
    console = Console(file=io.StringIO())
    base = train(Recipe.parse(recipe, "test"), tmp_path / "base", console=console)
    folder = trained(plan(base, [letters], way="adapters").recipe, tmp_path / "run")
    before, after = load_model(base).state_dict(), load_model(folder).state_dict()
    statistics = [name for name in before if name.startswith("features.normaliser")]
    assert statistics and all(after[name].equal(before[name]) for name in statistics)
