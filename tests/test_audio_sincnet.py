"""SincNet's features: the contract, filters that pass what they say, and layers as PASE+'s code has them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.audio.sincnet import BandPass, OverUtterance, SincNetConfig
from isogloss.audio.waveform import OverTime
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

SMALL = SincNetConfig(channels=(6, 4, 4), kernels=(31, 10, 5), strides=(1, 10, 4), skips=3)
PLAIN = SMALL.model_copy(update={"skips": 0})


def subject(config: SincNetConfig) -> Subject:
    return Subject(
        f"skips-{config.skips}",
        config.build,
        lambda module, batch: module(batch).unpad(),
        shape=(),
        samples=lambda steps: 1 + 40 * (steps - 1) + 17,
    )


@pytest.mark.parametrize("subject", [subject(SMALL), subject(PLAIN)], ids=str)
class TestContract(Contract):
    pass


def noise(*lengths: int) -> Sequence:
    generator = torch.Generator().manual_seed(1)
    return Sequence.from_list([0.1 * torch.randn(n, generator=generator) for n in lengths])


@torch.no_grad()
def test_frames_are_those_that_come_out() -> None:
    module = SMALL.build().eval()
    for samples in [*range(0, 5), *range(39, 4001, 137)]:
        found = module(noise(samples, samples // 2))
        assert found.values.shape == (2, SMALL.framing.frames(samples), 7)
        assert found.lengths.tolist() == [SMALL.framing.frames(samples), SMALL.framing.frames(samples // 2)]
        assert found.values.isfinite().all() and (found.values[~found.valid] == 0).all()
    assert SincNetConfig().framing.stride == 160 and SincNetConfig().framing.frames(32_000) == 200


def test_filters_are_symmetric_and_begin_side_by_side_on_the_mel_scale() -> None:
    layer = BandPass(64, 251)
    filters = layer.filters()
    assert filters.shape == (64, 251)
    assert torch.equal(filters, filters.flip(1))
    assert_close(filters[:, 125], torch.ones(64))
    low, high = (edge.detach().numpy() for edge in layer.edges)
    # As published: from 30 to 7900 Hz in equal steps, then 50 Hz upwards, and each 50 Hz wider.
    mel = np.linspace(2595 * math.log10(1 + 30 / 700), 2595 * math.log10(1 + 7900 / 700), 65)
    expected = 700 * (10 ** (mel / 2595) - 1)
    np.testing.assert_allclose(low, 50 + expected[:-1], rtol=1e-4)
    np.testing.assert_allclose(high, np.minimum(8000, 100 + expected[1:]), rtol=1e-4)


@torch.no_grad()
def test_filters_pass_what_lies_between_their_edges() -> None:
    """However far the edges are moved, and in whatever direction."""
    layer = BandPass(3, 251)
    layer.low.copy_(torch.tensor([0.5, -2.0, 30.0]))
    layer.band.copy_(torch.tensor([0.9, -1.0, 5.0]))
    low, high = layer.edges
    assert_close(low, torch.tensor([550.0, 2050.0, 7950.0]))
    assert_close(high, torch.tensor([1500.0, 3100.0, 8000.0]))
    response = torch.fft.rfft(layer.filters(), 4096).abs()[:2]
    hertz = torch.arange(2049) * 16000 / 4096
    for row, begin, end in zip(response, low, high, strict=False):
        inside = row[(hertz > begin + 100) & (hertz < end - 100)]
        outside = row[(hertz < begin - 100) | (hertz > end + 100)]
        assert inside.min() > 0.9 * inside.max() and outside.max() < 0.01 * inside.max()
    assert layer.filters().isfinite().all()


@torch.no_grad()
def test_a_tone_is_heard_by_the_filter_that_passes_it() -> None:
    layer = BandPass(64, 251)
    low, high = layer.edges
    for hertz in (220.0, 1000.0, 3500.0):
        tone = torch.sin(2 * math.pi * hertz * torch.arange(4000) / 16000)
        gains = (2 * (high - low) / 16000)[:, None]  # a filter is 1 in its middle, however narrow
        power = (gains * layer(tone[None, None])[0]).square().mean(dim=1)
        best = int(power.argmax())
        assert low[best] - 20 < hertz < high[best] + 20


@torch.no_grad()
def test_norms_are_those_of_each_utterance_alone() -> None:
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 5, 40), torch.tensor([40, 13, 1])
    mine, rows = OverUtterance(5), OverTime(5)
    for norm in (mine, rows):
        norm.weight.copy_(torch.linspace(0.5, 2, 5))
        norm.bias.copy_(torch.linspace(-1, 1, 5))
    dirty = torch.where(torch.arange(40) < lengths[:, None, None], x, 1e4)
    assert_close(mine(x, lengths), rows(x, lengths), atol=1e-4, rtol=1e-4)
    assert mine(dirty, torch.tensor([40, 13, 0]))[2].eq(0).all()


@torch.no_grad()
def test_all_layers_stand_behind_the_last_as_in_the_published_code() -> None:
    """A projection of every output, and then the mean over what falls on a frame: here around its centre."""
    torch.manual_seed(0)
    module = SMALL.build().double().eval()
    audio = noise(4000).map(Tensor.double)
    outputs: list[Tensor] = []
    for layer in module.layers:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    found = module(audio).values[0]
    frames = len(found)
    assert_close(found[:, :4], outputs[-1][0].T)
    expected = torch.zeros(frames, 3, dtype=torch.float64)
    for skip, output, stride in zip(module.skips, outputs, (40, 4), strict=False):
        projected = skip(output[0].T)
        padded = torch.nn.functional.pad(projected, (0, 0, stride // 2, stride))
        expected += torch.stack([padded[stride * t : stride * (t + 1)].mean(dim=0) for t in range(frames)])
    assert_close(found[:, 4:], expected)


def test_wrong_settings_are_one_sentence() -> None:
    with pytest.raises(IsoglossError, match="have 2, 8 and 8 values"):
        SincNetConfig.parse({"channels": [4, 4]}, "test")
    with pytest.raises(IsoglossError, match="the first kernel is odd"):
        SincNetConfig.parse({"kernels": [250, 20, 11, 11, 11, 11, 11, 11]}, "test")
