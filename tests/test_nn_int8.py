"""int8 weights: what rounding may change, and that a model of them is a model like any other."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import isogloss
from isogloss.data.clips import Clips
from isogloss.data.manifests import read_cuts
from isogloss.encoders.conformer import ConformerConfig
from isogloss.encoders.embed import SubsamplingConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.model.folder import WEIGHTS, load_model, quantise_model, save_model
from isogloss.model.model import Model
from isogloss.model.spec import ModelConfig
from isogloss.nn.int8 import Int8Linear, with_int8_weights
from isogloss.sequence import Sequence
from isogloss.training.build import build_model
from isogloss.training.recipe import Recipe
from small_models import build, sound, streaming


def test_a_weight_is_off_by_half_a_step_at_most() -> None:
    layer = nn.Linear(50, 7)
    layer.weight.data[3] = 0
    rounded = Int8Linear(layer)
    step = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded.weight * rounded.scale - layer.weight).abs() <= step / 2 + 1e-9).all()
    x = torch.randn(2, 3, 50)
    assert_close(rounded(x), nn.functional.linear(x, rounded.weight * rounded.scale, layer.bias))
    assert not list(rounded.parameters())


@pytest.mark.parametrize("position", ["rotary", "relative"])
def test_states_stay_close(position: str) -> None:
    torch.manual_seed(0)
    blocks = ConformerConfig(layers=2, width=32, heads=4, kernel=5, position=position)
    model = Model(ModelConfig(encoder=SpeechEncoderConfig(embed=SubsamplingConfig(channels=4), blocks=blocks))).eval()
    audio = Sequence.from_list([torch.from_numpy(sound(2))])
    with torch.inference_mode():
        exact, rounded = (made.encode(made.features(audio)).final.values for made in (model, model.quantised()))
    assert 0 < (rounded - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("model", [build(), streaming()], ids=["plain", "streaming"])
def test_a_folder_of_int8_weights_is_small_and_reads_the_same(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model", "# Name\n\nText.\n")
    quantise_model(tmp_path / "model", tmp_path / "small")
    loaded = load_model(tmp_path / "small")
    assert all(torch.equal(loaded.state_dict()[n], tensor) for n, tensor in model.quantised().state_dict().items())
    sizes = [(tmp_path / folder / WEIGHTS).stat().st_size for folder in ("small", "model")]
    assert sizes[0] < 0.75 * sizes[1]  # small models are mostly convolutions
    card = (tmp_path / "small" / "README.md").read_text()
    assert card.startswith("# Name\n\nWeights rounded to int8 from") and "Text." in card
    assert isinstance(isogloss.load(tmp_path / "small").transcribe(sound(2)).text, str)
    with pytest.raises(IsoglossError, match="int8 weights already"):
        quantise_model(tmp_path / "small", tmp_path / "again")


def test_training_starts_from_int8_weights_as_rounded_as_they_are(letters: Path, tmp_path: Path) -> None:
    small = build().quantised()
    save_model(small, tmp_path / "small", "card")
    recipe = {
        "name": "again",
        "model": {"start_from": str(tmp_path / "small"), "keep": "all"},
        "data": {"folders": [str(letters)]},
        "stages": [{"name": "a", "steps": 1, "seconds": {"paired": 1}, "objectives": [{"name": "recognition"}]}],
    }
    start = build_model(Recipe.parse(recipe, "test"), Clips.of([]), Clips.of(read_cuts(letters, "train")), Clips.of([]))
    assert start.config.weights == "float32" and not any(isinstance(part, Int8Linear) for part in start.modules())
    audio = Sequence.from_list([torch.from_numpy(sound(1))])
    with torch.inference_mode():
        ours, theirs = (made.eval().encode(made.features(audio)).final.values for made in (start, small))
    assert torch.equal(ours, theirs)
    assert all(parameter.requires_grad for parameter in start.parameters())


def test_modules_that_are_not_linear_stay() -> None:
    module = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Sequential(nn.Linear(2, 2)), nn.LSTM(2, 2))
    with_int8_weights(module)
    assert isinstance(module[1][0], Int8Linear) and isinstance(module[2], nn.LSTM) and type(module[0]) is nn.Conv1d
