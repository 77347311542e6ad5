"""Quasi-recurrent layers: the contract, their equations frame by frame, and piece by piece as the whole."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.encoders.embed import IdentityConfig
from isogloss.encoders.qrnn import QRNNBlock, QRNNConfig, recurrence
from isogloss.encoders.speech import SpeechEncoder, SpeechEncoderConfig
from isogloss.errors import IsoglossError
from isogloss.sequence import Sequence

WIDTH = 4


def qrnn(**changes: object) -> QRNNConfig:
    return QRNNConfig.parse({"layers": 2, "width": WIDTH, "hidden": 5} | changes, "test")


def encoder(blocks: QRNNConfig) -> SpeechEncoder:
    return SpeechEncoder(SpeechEncoderConfig(embed=IdentityConfig(), blocks=blocks), 6)


def subject(blocks: QRNNConfig) -> Subject:
    name = f"skip-{blocks.skip}-hidden-{blocks.hidden}"
    return Subject(name, lambda: encoder(blocks), lambda m, x: m(x).final.unpad(), (6,))


CONFIGS = [qrnn(), qrnn(skip=False), qrnn(hidden=0, skip=False, layers=1)]


@pytest.mark.parametrize("subject", [subject(blocks) for blocks in CONFIGS], ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("frames", [1, 2, 7, 64, 100])
def test_all_frames_at_once_are_one_after_another(frames: int) -> None:
    torch.manual_seed(0)
    factors = torch.rand(2, frames, 3, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(2, frames, 3, dtype=torch.float64, requires_grad=True)
    first = torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True)
    state, states = first[:, 0], []
    for factor, value in zip(factors.unbind(1), inputs.unbind(1), strict=True):
        state = factor * state + value
        states.append(state)
    found, expected = recurrence(factors, inputs, first), torch.stack(states, dim=1)
    assert_close(found, expected)
    slopes = [torch.autograd.grad(x.square().sum(), [factors, inputs, first]) for x in (found, expected)]
    assert_close(*slopes)
    assert torch.equal(recurrence(factors, inputs)[:, 0], inputs[:, 0])


@torch.no_grad()
def test_a_layer_is_its_equations() -> None:
    torch.manual_seed(0)
    block = QRNNBlock(qrnn(), 6, skip=True).double()
    x = torch.randn(1, 9, 6, dtype=torch.float64)
    assert block.gates is not None
    z_weight, f_weight, o_weight = block.gates.weight.chunk(3)
    z_bias, f_bias, o_bias = block.gates.bias.chunk(3)
    before, state = torch.zeros(2, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for t in range(9):
        below, left = x[0, t, :2], x[0, t, 2:]
        both = torch.cat([before, below])
        z, f, o = (z_weight @ both + z_bias).tanh(), (f_weight @ both + f_bias).sigmoid(), o_weight @ both + o_bias
        state = f * state + (1 - f) * z
        out = block.project(o.sigmoid() * state) + left
        expected = (out - out.mean()) / (out.var(correction=0) + 1e-5).sqrt()
        assert_close(block(x, torch.ones(1, 9), None)[0, t], expected)
        before = below


@pytest.mark.parametrize("blocks", CONFIGS, ids=str)
def test_piece_by_piece_is_the_whole_with_its_gradients(blocks: QRNNConfig) -> None:
    torch.manual_seed(0)
    made = encoder(blocks).double().eval()
    features = torch.randn(2, 23, 6, dtype=torch.float64, requires_grad=True)
    whole = made(Sequence(features, torch.tensor([23, 23]))).final.values
    weight = torch.randn_like(whole)
    expected = torch.autograd.grad((whole * weight).sum(), [features, *made.parameters()])
    for size in (1, 5):
        past = made.begin()
        pieces = [Sequence(part, torch.full((2,), part.shape[1])) for part in features.split(size, dim=1)]
        found = torch.cat([made(piece, past=past).final.values for piece in pieces], dim=1)
        assert_close(found, whole)
        assert_close(torch.autograd.grad((found * weight).sum(), [features, *made.parameters()]), expected)


def test_nothing_looks_ahead() -> None:
    made = encoder(qrnn()).eval()
    x = torch.randn(1, 20, 6)
    changed = torch.cat([x[:, :12], x[:, 12:] + 1], dim=1)
    one, other = (made(Sequence(values, torch.tensor([20]))).final.values for values in (x, changed))
    assert torch.equal(one[:, :12], other[:, :12]) and not torch.equal(one[:, 12:], other[:, 12:])


def test_size_is_as_it_says() -> None:
    def size(module: nn.Module) -> int:
        parameters: list[Tensor] = list(module.parameters())
        return sum(parameter.numel() for parameter in parameters)

    with torch.device("meta"):
        assert size(QRNNBlock(QRNNConfig(), 512 + 256, True)) == 3 * 512 * (2 * 512 + 1) + 256 * (512 + 1)
        assert size(QRNNBlock(QRNNConfig(hidden=0), 512, False)) == 256 * (512 + 1)


def test_too_few_features_to_skip_are_one_sentence() -> None:
    with pytest.raises(IsoglossError, match=r"adds the last 8 features .* only 6; set features to"):
        encoder(qrnn(width=8))
