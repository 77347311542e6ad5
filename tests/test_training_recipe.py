"""What a recipe says about features and encoder."""

import pytest

from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.presets import preset, preset_features
from isogloss.errors import IsoglossError
from isogloss.training.recipe import ModelRecipe, load_recipe


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
        ("model.features={kind: log_mal}", 'Did you mean "log_mel"? Known: log_mel, waveform.'),
        ("model.encoder=wav2vec2_bse", 'Did you mean "wav2vec2_base"?'),
        ("model.encoder={embed: {kind: projection, norms: false}}", 'unknown key "model.encoder.embed.norms"'),
        ("model.encoder={blocks: {kind: rnn}, context: {kind: local}}", "rnn blocks have no attention"),
    ],
)
def test_a_mistake_in_the_parts_is_named(override: str, said: str) -> None:
    with pytest.raises(IsoglossError) as caught:
        load_recipe("usm-tiny", [override])
    assert said in str(caught.value)
