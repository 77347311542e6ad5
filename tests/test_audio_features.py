"""Features of every kind: the contract, and what the waveform's convolutions do with lengths and levels."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.audio.features import FeaturesConfig
from isogloss.audio.log_mel import LogMelConfig
from isogloss.audio.waveform import WaveformConfig
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

FLOAT32 = {"dtype": torch.float32, "tolerance": 2e-4}
SMALL = {"channels": 6}
CONFIGS: dict[str, tuple[FeaturesConfig, dict[str, object]]] = {
    "log-mel": (LogMelConfig(bins=20), FLOAT32),
    "log-mel-kaldi-none": (LogMelConfig(bins=20, flavour="kaldi", normalisation="none"), FLOAT32),
    "log-mel-whisper": (LogMelConfig(bins=20, flavour="whisper", low_hz=0, normalisation="whisper"), FLOAT32),
    "waveform-group": (WaveformConfig(**SMALL), {}),
    "waveform-layer": (WaveformConfig(**SMALL, norm="layer", bias=True), {}),
    "waveform-logarithm": (WaveformConfig(**SMALL, norm="layer", log_compression=True), {}),
    "waveform-normalised": (WaveformConfig(**SMALL, norm="layer", bias=True, normalisation="utterance"), {}),
}


def subject(name: str) -> Subject:
    config, settings = CONFIGS[name]
    window, stride = config.framing.receptive_field, config.framing.stride
    return Subject(
        name,
        config.build,
        lambda module, batch: module(batch).unpad(),
        shape=(),
        samples=lambda steps: window + stride * (steps - 1) + 37,
        **settings,
    )


@pytest.mark.parametrize("subject", [subject(name) for name in CONFIGS], ids=str)
class TestContract(Contract):
    pass


def noise(*lengths: int, level: float = 0.1) -> Sequence:
    generator = torch.Generator().manual_seed(1)
    return Sequence.from_list([level * torch.randn(n, generator=generator) for n in lengths])


@pytest.mark.parametrize("config", [config for config, _ in CONFIGS.values()], ids=list(CONFIGS))
def test_frames_are_those_that_come_out(config: FeaturesConfig) -> None:
    module = config.build().eval()
    with torch.no_grad():
        for samples in [*range(0, 20), *range(37, 4001, 137)]:
            features = module(noise(samples, samples // 2))
            assert features.values.shape == (2, config.framing.frames(samples), module.width)
            assert features.lengths.tolist() == [config.framing.frames(samples), config.framing.frames(samples // 2)]
            assert features.values.isfinite().all() and (features.values[~features.valid] == 0).all()


@torch.no_grad()
def test_group_norm_is_over_the_valid_frames() -> None:
    """Each channel of the first layer has zero mean and unit variance over the utterance, whatever it lies in."""
    audio = noise(9000, 4001, 700)
    audio = audio.with_values(torch.nn.functional.pad(audio.values, (0, 5000)))
    module = WaveformConfig(**SMALL).build().eval()
    heard: list[Tensor] = []
    module.layers[0].norm.register_forward_hook(lambda _, __, output: heard.append(output))
    module(audio)
    lengths = [(n - 10) // 5 + 1 for n in (9000, 4001, 700)]
    for row, length in zip(heard[0], lengths, strict=True):
        assert_close(row[:, :length].mean(dim=1), torch.zeros(6), atol=1e-5, rtol=0)
        assert_close(row[:, :length].var(dim=1, correction=0), torch.ones(6), atol=1e-3, rtol=0)
        assert (row[:, length:] == 0).all()


@torch.no_grad()
def test_a_normalised_waveform_has_no_level() -> None:
    config = WaveformConfig(**SMALL, norm="layer", bias=True, normalisation="utterance")
    module = config.build().eval()
    loud, quiet = noise(8000, 5000), noise(8000, 5000, level=0.01)
    assert_close(module(quiet).values, module(loud.map(lambda x: x + 0.3)).values, atol=1e-3, rtol=0)
    plain = config.model_copy(update={"normalisation": "none"}).build().eval()
    assert not torch.allclose(plain(quiet).values, plain(loud).values, atol=1e-2)


@torch.no_grad()
def test_log_compression_is_that_of_what_comes_out() -> None:
    config = WaveformConfig(**SMALL, norm="layer", log_compression=True)
    module, audio = config.build().eval(), noise(8000, 5000)
    plain = config.model_copy(update={"log_compression": False}).build().eval()
    plain.load_state_dict(module.state_dict())
    assert_close(module(audio).values, (plain(audio).values.abs() + 1).log())


@torch.no_grad()
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_features_follow_the_type_of_their_weights(norm: str) -> None:
    module = WaveformConfig(**SMALL, norm=norm).build().eval()
    audio = noise(4000)
    exact, rounded = module(audio).values, module.bfloat16()(audio).values
    assert rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(exact.flatten(), rounded.float().flatten(), dim=0) > 0.99


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kernels": [10, 3]}, "kernels has 2 values and strides 7"),
        ({"strides": [5, 2, 2, 2, 2, 2, 0]}, "1 or more"),
        ({"norm": "batch"}, "norm"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(IsoglossError, match=said):
        WaveformConfig.parse(wrong, "test")
