"""wav2vec 2.0 from features and encoder gives the hidden states of `transformers` with the same weights.

A twin has random weights and the shape of a published model: base (group norm in the convolutions, post-norm blocks) or
large (layer norm, biases, pre-norm blocks). Padded batches of base are compared clip by clip: the first layer of the
twin takes its statistics over the padding too, ours does not (isogloss/audio/waveform.py).
"""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from isogloss.audio.waveform import WaveformConfig
from isogloss.encoders.embed import ProjectionConfig
from isogloss.encoders.speech import SpeechEncoderConfig
from isogloss.encoders.transformer import ConvolutionalPositionConfig, TransformerConfig
from isogloss.interop.wav2vec2 import WAV2VEC2
from isogloss.model.model import Model, ModelConfig
from isogloss.sequence import Sequence

pytest.importorskip("transformers")

CHANNELS, WIDTH, HEADS, LAYERS, KERNEL, GROUPS = 12, 32, 4, 3, 16, 4
SIZES = ["base", "large"]


def twin(size: str) -> Any:
    """A random model of `transformers`, in which no parameter is as it was initialised."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        conv_dim=[CHANNELS] * 7,
        conv_bias=size == "large",
        feat_extract_norm="layer" if size == "large" else "group",
        do_stable_layer_norm=size == "large",
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        intermediate_size=4 * WIDTH,
        num_conv_pos_embeddings=KERNEL,
        num_conv_pos_embedding_groups=GROUPS,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = Wav2Vec2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ours(theirs: Any, size: str) -> Model:
    """Our model with the twin's weights."""
    large = size == "large"
    blocks = TransformerConfig(
        layers=LAYERS,
        width=WIDTH,
        heads=HEADS,
        norm="pre" if large else "post",
        position="none",
        convolution=ConvolutionalPositionConfig(kernel=KERNEL, groups=GROUPS),
    )
    features = WaveformConfig(channels=CHANNELS, norm="layer" if large else "group", bias=large)
    config = ModelConfig(features=features, encoder=SpeechEncoderConfig(embed=ProjectionConfig(), blocks=blocks))
    model = Model(config).eval()
    weights = WAV2VEC2.to_ours(config, theirs.state_dict())
    assert model.state_dict().keys() == weights.keys()
    model.load_state_dict(weights)
    return model


def noise(*lengths: int) -> Sequence:
    generator = torch.Generator().manual_seed(2)
    return Sequence.from_list([0.1 * torch.randn(length, generator=generator) for length in lengths])


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_unpadded_states_are_the_twins(size: str) -> None:
    theirs = twin(size)
    model = ours(theirs, size)
    audio = noise(16_000, 16_000)
    expected = theirs(audio.values, output_hidden_states=True)
    features = model.features(audio)
    assert_close(features.values, theirs.feature_extractor(audio.values).transpose(1, 2), atol=1e-4, rtol=0)
    found = model.encode(features, layers=tuple(range(LAYERS + 1)))
    assert found.final.values.shape == (2, 49, WIDTH)
    assert_close(found.final.values, expected.last_hidden_state, atol=1e-4, rtol=0)
    # In the pre-norm twin the last hidden state is behind the last norm.
    for number, states in enumerate(expected.hidden_states[: LAYERS + (size == "base")]):
        assert_close(found.layers[number].values, states, atol=1e-4, rtol=0)


@torch.no_grad()
def test_padded_states_are_the_twins() -> None:
    theirs = twin("large")
    model = ours(theirs, "large")
    audio = noise(16_000, 9_000, 5_123, 401)
    expected = theirs(audio.values, attention_mask=audio.valid.long()).last_hidden_state
    found = model.encode(model.features(audio)).final
    assert found.lengths.tolist() == theirs._get_feat_extract_output_lengths(audio.lengths).tolist()
    for states, row in zip(found.unpad(), expected, strict=True):
        assert_close(states, row[: len(states)], atol=1e-4, rtol=0)


@torch.no_grad()
def test_padded_states_of_base_are_those_of_the_clip_alone() -> None:
    theirs = twin("base")
    model = ours(theirs, "base")
    audio = noise(16_000, 9_000, 5_123, 401)
    found = model.encode(model.features(audio)).final.unpad()
    for states, clip in zip(found, audio.unpad(), strict=True):
        assert_close(states, theirs(clip[None]).last_hidden_state[0], atol=1e-4, rtol=0)
