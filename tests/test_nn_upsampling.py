"""Durations and what stretches by them: sums, equality of the three forms where they must be equal, gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from contracts import Contract, Subject
from isogloss.nn.durations import durations, rounded, spread
from isogloss.nn.ema import EMA
from isogloss.nn.lightconv import LightweightBlock, LightweightConvolution
from isogloss.nn.upsampling import PLACES, Upsampler
from isogloss.sequence import Sequence

KINDS = ("repeat", "gaussian", "learned")


def stretched(module: nn.Module, units: Sequence) -> list[Tensor]:
    """Unit u lasts u mod 4 frames, and none of them alone makes an utterance of no frames."""
    lasting = (torch.arange(units.values.shape[1]) % 4).expand(len(units), -1) + (units.lengths[:, None] == 1)
    return module(units, Sequence(lasting, units.lengths)).unpad()


SUBJECTS = [
    *(
        Subject(f"upsampler-{kind}", lambda kind=kind: Upsampler(kind, 8), stretched, (8,), tolerance=1e-8)
        for kind in KINDS
    ),
    Subject(
        "lightweight",
        lambda: LightweightBlock(8, 2, 5, 0.0),
        lambda module, batch: batch.map(lambda x: module(batch.zero_padding().values, batch.valid)).unpad(),
        (8,),
    ),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(Contract):
    pass


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=4),
    st.integers(0, 12),
)
def test_durations_sum_to_the_frames(gaps: list[list[int]], rest: int) -> None:
    """Symbol u begins after the gaps before it; the units last from one beginning to the next."""
    symbols = torch.tensor([len(row) for row in gaps])
    starts = torch.full((len(gaps), max(1, int(symbols.max()))), -1)
    for row, found in enumerate(gaps):
        starts[row, : len(found)] = torch.tensor(found, dtype=torch.int64).cumsum(0)
    frames = torch.tensor([sum(row) + rest for row in gaps])
    lasting = durations(starts, symbols, frames)
    assert torch.equal(lasting.zero_padding().values.sum(dim=1), frames)
    assert torch.equal(lasting.values.sum(dim=1), frames)  # nothing stands in the padding
    for row, found in enumerate(gaps):
        assert lasting.values[row, : len(found) + 1].tolist() == [*found, rest]


def test_without_an_alignment_frames_are_shared_evenly() -> None:
    starts = spread(torch.tensor([4, 0, 2]), torch.tensor([8, 5, 1]), 4)
    lasting = durations(starts, torch.tensor([4, 0, 2]), torch.tensor([8, 5, 1]))
    assert [row.tolist() for row in lasting.unpad()] == [[0, 2, 2, 2, 2], [5], [0, 0, 1]]


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40))
def test_rounding_keeps_the_sum(values: list[float]) -> None:
    real = torch.tensor([values], dtype=torch.float64)
    whole = rounded(Sequence(real, torch.tensor([len(values)]))).values
    assert bool((whole >= 0).all()) and whole.dtype == torch.int64
    assert float((whole.cumsum(1) - real.cumsum(1)).abs().max()) <= 0.5 + 1e-9


def test_symbols_shorter_than_half_a_frame_are_not_lost() -> None:
    whole = rounded(Sequence(torch.full((1, 30), 0.4), torch.tensor([30]))).values
    assert int(whole.sum()) == 12 and set(whole.flatten().tolist()) == {0, 1}


def test_repeat_is_a_loop() -> None:
    upsampler = Upsampler("repeat", 4)
    units, lasting = torch.randn(1, 5, 4), torch.tensor([[2, 0, 3, 0, 40]])
    frames = [(unit, place) for unit, length in enumerate(lasting[0].tolist()) for place in range(length)]
    wanted = [units[0, unit] + upsampler.place.weight[min(place, PLACES - 1)] for unit, place in frames]
    found = upsampler(Sequence(units, torch.tensor([5])), Sequence(lasting, torch.tensor([5])))
    assert found.lengths.tolist() == [45]
    assert_close(found.values[0], torch.stack(wanted))


@pytest.mark.parametrize("lasting", [[3] * 6, [1, 5, 2, 0, 7, 1]])
def test_learned_upsampling_begins_as_repetition(lasting: list[int]) -> None:
    learned, repeat = Upsampler("learned", 8), Upsampler("repeat", 8)
    repeat.place.load_state_dict(learned.place.state_dict())
    units = Sequence(torch.randn(1, 6, 8), torch.tensor([6]))
    given_durations = Sequence(torch.tensor([lasting]), torch.tensor([6]))
    assert_close(learned(units, given_durations).values, repeat(units, given_durations).values, atol=1e-3, rtol=0)


def test_a_gaussian_is_the_formula() -> None:
    upsampler = Upsampler("gaussian", 4)
    units, lasting = torch.randn(1, 3, 4), torch.tensor([[2, 3, 1]])
    found = upsampler(Sequence(units, torch.tensor([3])), Sequence(lasting, torch.tensor([3]))).values[0]
    middles = torch.tensor([1.0, 3.5, 5.5])
    sigma = nn.functional.softplus(upsampler.spread(units[0]))[:, 0] + 0.1
    places = [0, 1, 0, 1, 2, 0]
    for frame, place in enumerate(places):
        weight = torch.exp(-((frame + 0.5 - middles) ** 2) / (2 * sigma**2))
        wanted = (weight / weight.sum()) @ units[0] + upsampler.place.weight[place]
        assert_close(found[frame], wanted)


def test_a_lightweight_convolution_is_a_weighted_mean() -> None:
    """Each channel is a mean of its neighbours with the softmax weights of its head, whatever it is."""
    layer = LightweightConvolution(6, 3, 3, 0.0)
    x, valid = torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    gated = nn.functional.glu(layer.expand(layer.norm(x)), dim=-1)[0]
    weights = layer.weight.softmax(dim=-1)
    padded = nn.functional.pad(gated, (0, 0, 1, 1))
    mixed = torch.stack([
        torch.stack([sum(weights[c // 2, k] * padded[t + k, c] for k in range(3)) for c in range(6)]) for t in range(5)
    ])
    assert_close(layer(x, valid)[0], layer.project(mixed))


def test_a_slow_copy_is_the_mean_and_nothing_to_train() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    slow = EMA(network)
    before = network[0].weight.detach().clone()
    assert list(slow.parameters()) == [] and "copy.0.weight" in slow.state_dict()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    slow.follow(network, 0.5)
    decay = min(0.5, 2 / 11)
    assert_close(slow.copy[0].weight, decay * before + (1 - decay) * (before + 1))
    slow.train()
    x = torch.randn(4, 3)
    assert torch.equal(slow.copy(x), slow.copy(x))  # no dropout, whatever mode it is put into
    network[0].weight.sum().backward()
    assert network[0].weight.grad is not None


def test_a_slow_copy_of_recurrent_weights_follows_them() -> None:
    network = nn.LSTM(3, 2)
    slow = EMA(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    slow.follow(network, 0.0)
    x = torch.randn(5, 1, 3)
    assert_close(slow.copy(x)[0], network(x)[0])
