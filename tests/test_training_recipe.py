"""What a recipe says about features and encoder."""

from pathlib import Path

import pytest
import yaml

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.config import load_yaml
from isogloss.encoders.presets import preset, preset_features
from isogloss.errors import IsoglossError
from isogloss.training.recipe import SHIPPED, ModelRecipe, load_recipe


@pytest.mark.parametrize("name", ["tiny", "apc", "wav2vec2_base", "wav2vec2_large"])
def test_a_preset_brings_its_features(name: str) -> None:
    model = load_recipe("usm-tiny", [f"model.encoder={name}"]).model
    assert model.encoder == preset(name)
    assert model.features == preset_features(name)
    assert ModelRecipe.parse(model.plain(), "again") == model


def test_features_that_are_given_stay() -> None:
    chosen = ["model.encoder=wav2vec2_base", "model.features={kind: waveform, norm: layer, bias: true}"]
    assert load_recipe("usm-tiny", chosen).model.features == WaveformConfig(norm="layer", bias=True)
    assert ModelRecipe().features == LogMelConfig()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.features={normalisation: running}", '"model.features" lacks the key "kind", which says what it is.'),
        ("model.features={kind: log_mal}", 'Did you mean "log_mel"? Known: log_mel, mfcc, waveform, sincnet.'),
        ("model.encoder=wav2vec2_bse", 'Did you mean "wav2vec2_base"?'),
        ("model.encoder={embed: {kind: projection, norms: false}}", 'unknown key "model.encoder.embed.norms"'),
        ("model.encoder={blocks: {kind: rnn}, context: {kind: local}}", "rnn blocks have no attention"),
    ],
)
def test_a_mistake_in_the_parts_is_named(override: str, said: str) -> None:
    with pytest.raises(IsoglossError) as caught:
        load_recipe("usm-tiny", [override])
    assert said in str(caught.value)


@pytest.mark.parametrize(("memory", "encoder", "width"), [(0.0, "tiny", 144), (20, "small", 256), (79.2, "base", 512)])
def test_a_recipe_is_larger_on_a_larger_gpu(
    memory: float, encoder: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isogloss.training.recipe.gpu_memory", lambda device: memory if device == "auto" else 0.0)
    shipped = load_yaml(SHIPPED / "usm-tiny.yaml")
    shipped["gpus"] = {16: ["model.encoder=small"], 70: ["model.encoder=base", "stages.0.seconds.speech=320"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(shipped))
    found = load_recipe(tmp_path / "recipe.yaml")
    assert found.model.encoder.blocks.width == width and (encoder == "tiny") == (not found.adapted)
    assert found.stages[0].seconds == {"speech": 320 if encoder == "base" else 40}
    told = load_recipe(tmp_path / "recipe.yaml", ["model.encoder=tiny", "stages.0.seconds={speech: 20}"])
    assert told.model.encoder.blocks.width == 144 and told.stages[0].seconds == {"speech": 20} and not told.adapted
    assert not load_recipe(tmp_path / "recipe.yaml", ["device=cpu"]).adapted
    shipped_larger = load_recipe("usm-small")
    assert shipped_larger.model.encoder.blocks.width == (144 if encoder == "tiny" else 256)
    saved = tmp_path / "saved.yaml"
    saved.write_text(yaml.safe_dump(found.plain()))  # what was chosen is chosen once
    assert load_recipe(saved) == found
