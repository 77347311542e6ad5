"""The building blocks that mix time keep the contract."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from contracts import Contract, Subject
from isogloss.nn.attention import Position, SelfAttention
from isogloss.nn.convolution import ConvolutionModule, ConvolutionNorm
from isogloss.nn.feedforward import FeedForward
from isogloss.nn.masks import ChunkContext, Context, FullContext, LocalContext, attention_mask
from isogloss.nn.pooling import AttentiveStatistics
from isogloss.nn.position import DeepConvolutionalPosition
from isogloss.nn.subsampling import Subsampling, stack
from isogloss.sequence import Sequence

WIDTH = 16
GARBAGE = 1e3


def attention(position: Position, context: Context) -> Subject:
    def call(module: nn.Module, batch: Sequence) -> list[Tensor]:
        return batch.map(lambda x: module(x, attention_mask(batch.valid, context))).unpad()

    name = f"attention-{position}-{context.kind}"
    return Subject(name, lambda: SelfAttention(WIDTH, 2, position), call, (WIDTH,), poison=GARBAGE)


def convolution(kernel: int, norm: ConvolutionNorm, **changes: bool) -> Subject:
    def call(module: nn.Module, batch: Sequence) -> list[Tensor]:
        return batch.map(lambda x: module(x, batch.valid)).unpad()

    def build() -> nn.Module:
        return ConvolutionModule(WIDTH, kernel, norm, dropout=0.0, **changes)

    return Subject("-".join(["convolution", str(kernel), norm, *changes]), build, call, (WIDTH,), poison=GARBAGE)


def positions() -> Subject:
    def build() -> nn.Module:
        return DeepConvolutionalPosition(WIDTH, 6, 4, layers=3)

    return Subject("positions", build, lambda m, x: x.map(lambda v: m(v, x.valid)).unpad(), (WIDTH,), poison=GARBAGE)


SUBJECTS = [
    Subject("subsampling", lambda: Subsampling(6, 4, WIDTH), lambda m, x: m(x).unpad(), (6,)),
    *[attention(position, FullContext()) for position in ("rotary", "relative", "none")],
    *[attention(position, FullContext()) for position in ("rotary_inputs", "relative_key")],
    attention("relative_key", ChunkContext(size=4, left_chunks=1)),
    attention("rotary", LocalContext(left=3, right=2)),
    attention("relative", ChunkContext(size=4, left_chunks=1)),
    *[convolution(kernel, norm) for kernel in (1, 4, 5, 32) for norm in ("layer", "group", "batch")],
    convolution(5, "layer", causal=True, bias=False),
    positions(),
    Subject(
        "feedforward",
        lambda: FeedForward(WIDTH, dropout=0.0),
        lambda m, x: x.map(m).unpad(),
        (WIDTH,),
        poison=GARBAGE,
    ),
    Subject(
        "statistics",
        lambda: AttentiveStatistics(WIDTH, hidden=8),
        lambda m, x: list(m(x)),
        (WIDTH,),
        dtype=torch.float32,
        tolerance=2e-5,
    ),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


@pytest.mark.parametrize("bins", [1, 2, 3, 80, 81])
def test_subsampling_of_any_number_of_bins(bins: int) -> None:
    module = Subsampling(bins, 2, 8)
    assert module(Sequence(torch.randn(1, 9, bins), torch.tensor([9]))).values.shape == (1, 3, 8)


def test_subsampled_lengths_are_those_of_the_convolutions() -> None:
    module = Subsampling(2, 1, 4)
    with torch.no_grad():
        for frames in range(1, 401):
            states = module(Sequence(torch.zeros(2, frames, 2), torch.tensor([frames, frames // 2])))
            assert states.values.shape[1] == module.framing.frames(frames) == -(-frames // 4)
            assert states.lengths.tolist() == [-(-frames // 4), -(-(frames // 2) // 4)]


def test_subsampling_sees_the_frames_it_says() -> None:
    """Frame i looks at input frames 4i-3 … 4i+3."""
    module = Subsampling(6, 8, WIDTH)
    with torch.no_grad():
        for convolution in (module.first, module.second):
            convolution.weight.abs_()  # no unit is dead
    features = torch.rand(1, 40, 6, requires_grad=True)
    for frame in (0, 1, 5, 9):
        states = module(Sequence(features, torch.tensor([40]))).values
        (gradient,) = torch.autograd.grad(states[0, frame].sum(), features)
        seen = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
        assert seen == list(range(max(0, 4 * frame - 3), min(40, 4 * frame + 4)))


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_frames_side_by_side(factor: int) -> None:
    features = Sequence(torch.randn(2, 11, 3), torch.tensor([11, 4]))
    found = stack(features, factor)
    assert found.shape == (2, -(-11 // factor), factor * 3)
    clean = features.zero_padding().values
    for row, frame in itertools.product(range(2), range(11)):
        place = 3 * (frame % factor)
        assert torch.equal(found[row, frame // factor, place : place + 3], clean[row, frame])
    assert (found.flatten(1)[:, 33:] == 0).all()
