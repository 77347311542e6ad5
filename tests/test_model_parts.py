"""Models of other features and encoders than log-mel and Conformer: one folder, one frame rate, one seam for masks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from isogloss.encoders.presets import preset, preset_features
from isogloss.model.folder import load_model, save_model
from isogloss.model.model import Model, ModelConfig
from isogloss.model.recogniser import Recogniser
from isogloss.sequence import Sequence
from small_models import sound

FRAME_SECONDS = {"apc": 0.01, "wav2vec2_base": 0.02, "wav2vec2_large": 0.02, "test": 0.04}


def small(name: str) -> Model:
    """The parts of a preset, made small, with random weights."""
    changes: dict[str, Any] = {"layers": 2, "width": 32} | ({"heads": 4} if name != "apc" else {})
    encoder, features = preset(name), preset_features(name)
    if name.startswith("wav2vec2"):
        features = features.model_copy(update={"channels": 12})
    encoder = encoder.model_copy(update={"blocks": encoder.blocks.model_copy(update=changes)})
    torch.manual_seed(0)
    return Model(ModelConfig(features=features, encoder=encoder)).eval()


@pytest.fixture(params=FRAME_SECONDS)
def model(request: pytest.FixtureRequest) -> Model:
    return small(request.param)


def test_a_folder_keeps_every_part(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model", "")
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    audio = sound(2)
    states = Recogniser(model).encode(audio)
    assert torch.equal(Recogniser(loaded).encode(audio), states)
    assert torch.equal(Recogniser(copy.deepcopy(loaded)).encode(audio), states)
    rounded = Recogniser(loaded.quantised()).encode(audio)
    # Whatever is linear was rounded; a recurrent layer has nothing of the kind.
    linear = any(type(module) is torch.nn.Linear for module in model.modules())
    assert (0 < (rounded - states).norm() < 0.05 * states.norm()) if linear else torch.equal(rounded, states)


@pytest.mark.parametrize(("name", "seconds"), FRAME_SECONDS.items())
def test_frames_come_at_the_rate_of_the_parts(name: str, seconds: float) -> None:
    model = small(name)
    assert model.frame_seconds == seconds
    states = Recogniser(model).encode(sound(2))
    assert len(states) == model.framing.frames(32_000)
    assert abs(len(states) * seconds - 2) < 2 * max(seconds, 0.025)


@torch.inference_mode()
def test_encoding_is_embedding_and_contextualising(model: Model) -> None:
    audio = Sequence.from_list([torch.from_numpy(sound(seconds)) for seconds in (2, 1.3)])
    features = model.features(audio)
    whole = model.encode(features, layers=(1,))
    states = model.embed(features)
    parts = model.contextualise(states, layers=(1,))
    assert torch.equal(parts.final.values, whole.final.values)
    assert torch.equal(parts.layers[1].values, whole.layers[1].values)
    upper = model.contextualise(model.contextualise(states, until=1).final, after=1).final
    assert_close(upper.zero_padding().values, whole.final.zero_padding().values, atol=0, rtol=0)
