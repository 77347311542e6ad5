"""The pruned transducer loss: its lattice against enumeration, its ranges, and the whole loss as its limit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from isogloss.nn.lattice import forward_backward, log_likelihood
from isogloss.nn.pruned import likely_starts, pruned_transducer_loss, simple_arcs, two_step_loss
from isogloss.nn.transducer import fused_transducer_loss, transducer_loss
from test_nn_transducer import paths

TOKENS = torch.tensor([[1, 2, 6, 4], [5, 5, 0, 0], [3, 0, 0, 0]])
LENGTHS = torch.tensor([6, 5, 1]), torch.tensor([4, 2, 1])


def parts(*widths: int) -> list[Tensor]:
    """Audio (3, 6, W) and text (3, 5, W) for each width, in double precision."""
    generator = torch.Generator().manual_seed(1)
    shapes = [shape for width in widths for shape in ((3, 6, width), (3, 5, width))]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def joiner() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = (7, 8), (7,)
    return parts(8) + [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    ]


def test_the_simple_loss_is_that_of_the_summed_logits() -> None:
    audio, text = parts(7)
    logits = audio[:, :, None] + text[:, None]
    expected = transducer_loss(logits, TOKENS, *LENGTHS, reduction="none")
    found = -log_likelihood(*simple_arcs(audio, text, TOKENS, LENGTHS[1]), LENGTHS)
    assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x.sum(), (audio, text)) for x in (found, expected)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("nats", [40.0, 88.0, 120.0, 700.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_simple_arcs_are_exact_where_audio_and_text_exclude_each_other(nats: float, dtype: torch.dtype) -> None:
    """In half of the frames audio and text are sure of different symbols, by so many nats each."""
    audio, text = (x.detach().to(dtype) for x in parts(7))
    audio[:, ::2, 1] += nats
    text[:, ::2, 2] += nats
    audio, text = audio.requires_grad_(), text.requires_grad_()
    exact = (audio.double()[:, :, None] + text.double()[:, None]).log_softmax(dim=-1)
    following = torch.nn.functional.pad(TOKENS, (0, 1))[:, None, :, None].expand(-1, 6, -1, -1)
    expected = torch.stack([exact[..., 0], exact.gather(3, following)[..., 0]])
    found = torch.stack(simple_arcs(audio, text, TOKENS, LENGTHS[1]))
    written = torch.arange(5) < LENGTHS[1][:, None]
    found, expected = (torch.stack([x[0], x[1].where(written[:, None], 0.0)]) for x in (found, expected))
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    losses = (found.double() * slope).sum(), (expected * slope).sum()
    for one, other in zip(*(torch.autograd.grad(x, (audio, text)) for x in losses), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_with_room_for_all_symbols_it_is_the_whole_loss() -> None:
    states = joiner()
    starts = torch.zeros(3, 6, dtype=torch.int64)
    expected = fused_transducer_loss(*states, TOKENS, *LENGTHS, reduction="none")
    found = pruned_transducer_loss(*states, TOKENS, LENGTHS, starts, width=5)
    assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x.sum(), states) for x in (found, expected)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_pruned_loss_sums_the_paths_within_its_ranges(width: int) -> None:
    states = joiner()
    audio, text, weight, bias = (x.detach() for x in states)
    scores = ((audio[:, :, None] + text[:, None]).tanh() @ weight.T + bias).log_softmax(dim=-1)
    nodes = torch.rand(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
    starts = likely_starts(nodes, LENGTHS, width)
    found = pruned_transducer_loss(*states, TOKENS, LENGTHS, starts, width)
    for row, (frames, symbols) in enumerate(zip(*map(Tensor.tolist, LENGTHS), strict=True)):
        inside = [
            torch.stack([scores[row, t, u, TOKENS[row, u] if is_label else 0] for t, u, is_label in path]).sum()
            for path in paths(frames, symbols)
            if all(starts[row, t] <= u < starts[row, t] + width for t, u, _ in path)
        ]
        assert_close(found[row], -torch.stack(inside).logsumexp(dim=0))
    assert (found >= fused_transducer_loss(*states, TOKENS, *LENGTHS, reduction="none") - 1e-9).all()
    assert torch.autograd.gradcheck(lambda *x: pruned_transducer_loss(*x, TOKENS, LENGTHS, starts, width), states)


@given(st.integers(1, 20), st.integers(0, 19), st.integers(2, 6), st.integers(0, 2**31))
@settings(max_examples=200)
def test_ranges_lead_from_beginning_to_end(frames: int, symbols: int, width: int, seed: int) -> None:
    symbols = min(symbols, (width - 1) * frames)
    most = max(symbols, width) + 3  # of the longest utterance in the batch
    nodes = torch.rand(1, frames + 4, most + 1, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([frames]), torch.tensor([symbols])
    start = likely_starts(nodes, lengths, width)[0]
    assert start[0] == 0 and start[frames - 1] == max(symbols + 1 - width, 0)
    steps = start.diff()
    assert (steps >= 0).all() and (steps < width).all() and start[-1] + width <= most + 1
    window = start[:, None] + torch.arange(width)
    flat = torch.full((1, frames + 4, most + 1), -torch.inf).scatter(2, window[None], -1.0)
    assert log_likelihood(flat, flat, lengths).isfinite()


def test_ranges_hold_the_mass_of_a_sure_alignment() -> None:
    """One symbol every second frame: a range of three always holds all of it."""
    score = torch.full((1, 12, 7), -20.0)
    label = score.clone()
    for u in range(6):
        label[0, 2 * u, u] = 0.0
        score[0, 2 * u : 2 * u + 2, u + 1] = 0.0
    lengths = torch.tensor([12]), torch.tensor([6])
    nodes = forward_backward(score, label, lengths).node
    start = likely_starts(nodes, lengths, 3)
    held = nodes.gather(2, start[..., None] + torch.arange(3)).sum(dim=2)
    assert_close(held, nodes.sum(dim=2), atol=1e-6, rtol=0)


def test_the_simple_joiner_learns_where_the_other_looks() -> None:
    states, simple = joiner(), parts(7)
    loss = two_step_loss(tuple(simple), tuple(states), TOKENS, LENGTHS, width=3)
    assert loss.shape == (3,)
    loss.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() and x.grad.any() for x in (*simple, *states))


def test_more_symbols_than_the_ranges_reach_pay_the_whole_loss() -> None:
    """Four symbols in one frame, in two, and in six: ranges of two lead through the last alone."""
    states, simple = joiner(), parts(7)
    tokens, lengths = TOKENS[[0, 0, 0]], (torch.tensor([1, 2, 6]), torch.tensor([4, 4, 4]))
    found = two_step_loss(tuple(simple), tuple(states), tokens, lengths, width=2, share=0.0)
    whole = fused_transducer_loss(*states, tokens, *lengths, reduction="none")
    assert_close(found[:2], whole[:2])
    assert found[2] > whole[2] + 1e-3
    for one, other in zip(*(torch.autograd.grad(x[:2].sum(), states) for x in (found, whole)), strict=True):
        assert_close(one, other)


def test_the_gradient_of_both_losses_together() -> None:
    """A row of one frame, and logits of which the product of matrices loses some."""
    states, simple = joiner(), parts(7)
    simple[0].data[0, 1, 1], simple[1].data[0, 1, 2] = 800.0, 800.0
    tokens, lengths = TOKENS[[0, 1, 0]], (torch.tensor([6, 5, 1]), torch.tensor([4, 2, 2]))

    def loss(*arguments: Tensor) -> Tensor:
        return two_step_loss(arguments[:2], arguments[2:], tokens, lengths, width=2)

    assert torch.autograd.gradcheck(loss, (*simple, *states))
